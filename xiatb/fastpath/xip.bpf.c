// The XIP forwarder of a node: a tc classifier (clsact ingress, direct action) on each of its ports.
//
// It is the walk of xiatb/wire/walk.py and the rules around it (header checks, hop limit, MTU, padding) as the
// Click graph applies them. A packet that it can finish leaves by bpf_redirect, so the egress port's qdisc and
// every capture see it. A malformed packet is counted and dropped. Every other packet is passed on unchanged
// to whoever listens, which is the node process: its Click graph is the slow path.
//
// Tables are written by xiatb/fastpath/engine.py, which knows the layouts of the structs below. Licence and
// language are kept to what kernel 6.1 takes: plain bounded loops, no GPL-only helper, no TCX.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_LEN 14
#define ETH_P_XIP 0xC0DE
#define PACKET_OTHERHOST 3
#define FIXED_LEN 8
#define NODE_LEN 28
#define EDGES_OFF 24
#define MAX_NODES 20
#define MAX_EDGES 4
#define ENTRY 0x7E
#define VISITED 0x80
#define FIRST_NODE (ETH_LEN + FIXED_LEN)
#define MAX_HEAD (FIRST_NODE + NODE_LEN * MAX_NODES)

#define TYPE_CID 0x12
#define TYPE_SID 0x13
#define TYPE_NCID 0x31
#define TYPE_ICID 0x32

// What to do with a packet for an XID. NONE is only in `defaults`: no default for this type.
enum kind { NONE, FORWARD, SELF, PASS, DISCARD, FALLBACK };

struct route {
	__u32 kind;
	__u32 ifindex; // egress; 0 with SELF: for the node process itself
	__u32 mtu;     // largest XIP packet, octets
	__u32 slot;    // of the egress port in `counters`; of a route to DISCARD in `discards`: the principal type
	__u8 macs[12]; // destination and source, as the frame has them
	__u32 unused;
};

#define NO_TRANSIT 1 // an end host's port: what comes in is delivered here or not at all

struct port {
	__u32 slot;
	__u32 flags;
};

// Why a packet was not forwarded. First those that are dropped, then those that are passed on.
enum reason {
	BAD_VERSION,
	BAD_NODES,
	BAD_LENGTH,
	BAD_LAST,
	DISCARDED,
	FOREIGN,  // for another Ethernet address, or with a VLAN tag
	NO_ROUTE,
	LOCAL,    // for the node process
	EXCEPTED, // the route says PASS
	TRANSIT,  // an end host does not forward
	HOP_LIMIT,
	TOO_BIG,
	FAILED,   // the kernel had no memory to change the packet
	REASONS,
};

struct counters {
	__u64 rx_packets; // forwarded or delivered, came in here
	__u64 rx_bytes;   // of frames as they came, with padding
	__u64 tx_packets; // the same, by where they went out
	__u64 tx_bytes;
	__u64 dropped_bytes;
	__u64 reasons[REASONS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__uint(key_size, 24);
	__uint(value_size, sizeof(struct route));
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct route);
} defaults SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

// Packets for a route to DISCARD, by the principal type of the XID that had it.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} discards SEC(".maps");

// Holds the forwarder for as long as the node process lives: when the last descriptor of a program array is
// closed the kernel empties it, also after SIGKILL. See docs/fastpath.md.
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} engine SEC(".maps");

// Returns `size` octets of the frame from `off`, NULL when they are not there. The barrier keeps the compiler from
// computing the pointer a second time, which the verifier would take for an unchecked one.
static __always_inline __u8 *octets(struct __sk_buff *skb, __u32 off, __u32 size)
{
	__u8 *p = (__u8 *)(long)skb->data + off;

	asm volatile("" : "+r"(p));
	return p + size <= (__u8 *)(long)skb->data_end ? p : (__u8 *)0;
}

static __always_inline __u8 *node(struct __sk_buff *skb, __u32 index)
{
	return octets(skb, FIRST_NODE + NODE_LEN * index, NODE_LEN);
}

static __always_inline __u32 type_of(const __u8 *key)
{
	return bpf_ntohl(*(const __u32 *)key);
}

static __always_inline struct route *look_up(const __u8 *key)
{
	struct route *route = bpf_map_lookup_elem(&routes, key);
	__u32 type;

	if (route)
		return route;
	type = type_of(key);
	return bpf_map_lookup_elem(&defaults, &type);
}

// Owning an XID of these types means that the packet is for something here, whatever follows it.
static __always_inline int is_endpoint(__u32 type)
{
	return type == TYPE_SID || type == TYPE_CID || type == TYPE_NCID || type == TYPE_ICID;
}

static __always_inline int drop(struct __sk_buff *skb, struct counters *in, enum reason reason)
{
	in->reasons[reason]++;
	in->dropped_bytes += skb->len;
	return TC_ACT_SHOT;
}

static __always_inline int discard(struct __sk_buff *skb, struct counters *in, __u32 type)
{
	__u64 *count = bpf_map_lookup_elem(&discards, &type);

	if (count)
		(*count)++;
	return drop(skb, in, DISCARDED);
}

static __always_inline int pass(struct counters *in, enum reason reason)
{
	in->reasons[reason]++;
	return TC_ACT_UNSPEC;
}

// A packet on its way through. `path` are the places in the frame of the edges that were followed: the packet is
// changed only when it is certain that it will not be passed on.
struct transit {
	struct route route; // a copy: the table may change meanwhile
	__u32 total;        // octets of the frame without padding
	__u32 dnode;
	__u32 at;           // the node whose edges are tried
	__u32 last;
	__u32 steps;
	__u32 hlim;
	__u16 path[MAX_NODES];
};

enum outcome { NOWHERE, FOUND, ARRIVED, ONWARD };

// Tries the edges of one node. Sets route; after a match with this node itself also at, last, steps and path.
// A global function is verified once, not once for each of the 20 nodes: loading takes 2 ms instead of 120.
__attribute__((noinline)) int follow(struct __sk_buff *skb, struct transit *t)
{
	__u32 slot, index, type;
	__u8 edges[MAX_EDGES];
	struct route *route;
	__u8 *p;

	if (!t || t->at >= MAX_NODES)
		return NOWHERE;
	p = node(skb, t->at);
	if (!p)
		return NOWHERE;
	__builtin_memcpy(edges, p + EDGES_OFF, MAX_EDGES);
#pragma unroll
	for (slot = 0; slot < MAX_EDGES; slot++) {
		index = edges[slot] & ~VISITED;
		if (index >= t->dnode)
			return NOWHERE;
		p = node(skb, index);
		if (!p)
			return NOWHERE;
		route = look_up(p);
		if (!route || route->kind == NONE || route->kind == FALLBACK)
			continue;
		t->route = *route;
		if (t->route.kind != SELF)
			return FOUND;
		if (t->steps >= MAX_NODES)
			return NOWHERE;
		t->path[t->steps++] = FIRST_NODE + NODE_LEN * t->at + EDGES_OFF + slot;
		t->last = t->at = index;
		type = type_of(p);
		return index == t->dnode - 1 || is_endpoint(type) ? ARRIVED : ONWARD;
	}
	return NOWHERE;
}

// Sets the visited bits of the edges that were followed.
__attribute__((noinline)) int mark(struct __sk_buff *skb, struct transit *t)
{
	__u32 step, off;
	__u8 *p;

	if (!t)
		return 0;
	for (step = 0; step < MAX_NODES; step++) {
		if (step >= t->steps)
			return 0;
		off = t->path[step];
		if (off >= MAX_HEAD)
			return 0;
		p = octets(skb, off, 1);
		if (p)
			*p |= VISITED;
	}
	return 0;
}

static __always_inline enum outcome walk(struct __sk_buff *skb, struct transit *t)
{
	enum outcome outcome = NOWHERE;
	__u32 step;

	t->at = t->last == ENTRY ? t->dnode - 1 : t->last;
	for (step = 0; step < MAX_NODES; step++) {
		if (step >= t->dnode)
			return NOWHERE; // edges in a circle
		outcome = follow(skb, t);
		if (outcome != ONWARD)
			return outcome;
	}
	return NOWHERE;
}

// Changes the packet as the walk says and sends it out by its route.
static __always_inline int send(struct __sk_buff *skb, struct transit *t, struct counters *in)
{
	struct counters *out;
	__u32 came = skb->len;
	__u8 *p;

	if (came > t->total && bpf_skb_change_tail(skb, t->total, 0))
		return pass(in, FAILED);
	if (t->steps)
		mark(skb, t);
	p = octets(skb, 0, FIRST_NODE);
	if (!p)
		return pass(in, FAILED);
	__builtin_memcpy(p, t->route.macs, sizeof(t->route.macs));
	p[ETH_LEN + 4] = t->hlim;
	p[ETH_LEN + 7] = t->last;
	in->rx_packets++;
	in->rx_bytes += came;
	out = bpf_map_lookup_elem(&counters, &t->route.slot);
	if (out) {
		out->tx_packets++;
		out->tx_bytes += t->total;
	}
	return bpf_redirect(t->route.ifindex, 0);
}

// Reads the fixed header. Returns 0, or the drop reason plus 1.
static __always_inline int parse(struct __sk_buff *skb, struct transit *t)
{
	__u32 snode;
	__u8 *p = octets(skb, ETH_LEN, FIXED_LEN);

	if (!p)
		return BAD_LENGTH + 1;
	if (p[0] != 1)
		return BAD_VERSION + 1;
	t->hlim = p[4];
	t->dnode = p[5];
	snode = p[6];
	t->last = p[7];
	if (t->dnode == 0 || t->dnode > MAX_NODES || snode == 0 || snode > MAX_NODES)
		return BAD_NODES + 1;
	t->total = FIRST_NODE + NODE_LEN * (t->dnode + snode) + (p[2] << 8 | p[3]);
	if (skb->len < t->total)
		return BAD_LENGTH + 1;
	if (t->last >= t->dnode && t->last != ENTRY)
		return BAD_LAST + 1;
	return 0;
}

SEC("tc")
int xip_forward(struct __sk_buff *skb)
{
	struct transit t = {};
	__u32 ifindex = skb->ingress_ifindex;
	__u32 head = skb->len < MAX_HEAD ? skb->len : MAX_HEAD;
	struct counters *in;
	struct port *port;
	enum outcome outcome;
	int bad;

	port = bpf_map_lookup_elem(&ports, &ifindex);
	if (!port)
		return TC_ACT_UNSPEC;
	in = bpf_map_lookup_elem(&counters, &port->slot);
	if (!in)
		return TC_ACT_UNSPEC;
	if (skb->protocol != bpf_htons(ETH_P_XIP) || skb->vlan_present || skb->pkt_type == PACKET_OTHERHOST)
		return pass(in, FOREIGN);
	// Frames from a tap may have their head in pages.
	if ((__u8 *)(long)skb->data + head > (__u8 *)(long)skb->data_end && bpf_skb_pull_data(skb, head))
		return pass(in, FAILED);
	bad = parse(skb, &t);
	if (bad)
		return drop(skb, in, bad - 1);
	outcome = walk(skb, &t);
	if (outcome == NOWHERE)
		return pass(in, NO_ROUTE);
	if (t.route.kind == DISCARD)
		return discard(skb, in, t.route.slot);
	if (t.route.kind == PASS)
		return pass(in, EXCEPTED);
	if (outcome == ARRIVED) {
		if (!t.route.ifindex)
			return pass(in, LOCAL);
	} else {
		if (port->flags & NO_TRANSIT)
			return pass(in, TRANSIT);
		if (t.hlim <= 1)
			return pass(in, HOP_LIMIT);
		t.hlim--;
	}
	if (t.total - ETH_LEN > t.route.mtu)
		return pass(in, TOO_BIG);
	return send(skb, &t, in);
}

// What is attached. It stays when the node process dies, and then passes everything.
SEC("tc")
int xip_entry(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &engine, 0);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Apache-2.0";

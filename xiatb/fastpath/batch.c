/* Batch I/O on packet sockets: many frames by one system call, stream segments cut and joined on the way.
 *
 * Plain C on plain memory; batch.py calls it by ctypes and holds the same in Python (trains.py), which is the
 * specification that tests compare with. Nothing is kept between calls. What comes from the network is hostile:
 * every length is checked against the frame's. Results are counts, or -errno.
 *
 * XIP: xiatb/wire/xip.py. XSTREAM: xiatb/wire/xstream.py. All their integers are big-endian.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    BURST = 64,
    SLOT = 65536 + 192, /* not a power of two: slots must not share the sets of a cache */
    TRAIN = 1024,       /* most segments of one train */
    JOINED = 65536,     /* most payload of joined segments: larger pieces cost page faults in malloc */
    ETHERNET = 14,
    FIXED = 8,
    NODE = 28,
    NODES = 20,
    ENTRY = 0x7E,
    STREAM = 16,
    STAMPED = 28,
    PUSH = 0x08,
    ACK = 0x10,
    HEAD = ETHERNET + FIXED + 2 * NODES * NODE + STAMPED,
};

struct train {
    uint32_t at, header, payload_at, payload, segments;
};

struct segment {
    uint8_t *packet; /* XIP header */
    uint8_t *stream; /* XSTREAM header */
    uint8_t *data;
    uint32_t size, words, seq, ack, stamp;
};

static uint32_t get16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }

static uint32_t get32(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, 4);
    return be32toh(value);
}

static void put16(uint8_t *p, uint32_t value)
{
    p[0] = value >> 8;
    p[1] = value;
}

static void put32(uint8_t *p, uint32_t value)
{
    value = htobe32(value);
    memcpy(p, &value, 4);
}

int xiatb_slot(void) { return SLOT; }

/* Makes malloc keep what is freed instead of giving it back to the kernel at once: 1 when it will. Pieces of
 * streams are some 100 KiB, and new memory costs a page fault for every 4 KiB. */
int xiatb_keep_memory(void) { return mallopt(M_MMAP_THRESHOLD, 4 << 20) && mallopt(M_TRIM_THRESHOLD, 16 << 20); }

/* Up to `limit` waiting frames, one to a slot; their sizes. 0: none waits. */
int xiatb_receive(int fd, uint8_t *slab, unsigned limit, uint32_t *sizes)
{
    struct mmsghdr messages[BURST];
    struct iovec parts[BURST];
    int got;

    if (limit > BURST)
        limit = BURST;
    memset(messages, 0, limit * sizeof *messages);
    for (unsigned i = 0; i < limit; i++) {
        parts[i] = (struct iovec){slab + (size_t)i * SLOT, SLOT};
        messages[i].msg_hdr.msg_iov = parts + i;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    do
        got = recvmmsg(fd, messages, limit, MSG_DONTWAIT, NULL);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN ? 0 : -errno;
    for (int i = 0; i < got; i++)
        sizes[i] = messages[i].msg_len;
    return got;
}

/* Whether a frame is a stream segment with payload that may be joined to others: flags ACK, or ACK and PSH,
 * and no option but the timestamp. */
static int joinable(uint8_t *frame, uint32_t size, struct segment *s)
{
    uint8_t *packet = frame + ETHERNET, *stream;
    uint32_t plen, offset;

    if (size < ETHERNET + FIXED || get16(frame + 12) != 0xC0DE)
        return 0;
    size -= ETHERNET;
    if (packet[0] != 1 || packet[1] != 3 || !packet[5] || packet[5] > NODES || !packet[6] || packet[6] > NODES)
        return 0;
    if (packet[7] >= packet[5] && packet[7] != ENTRY)
        return 0;
    plen = get16(packet + 2);
    offset = FIXED + NODE * (packet[5] + packet[6]);
    if (plen < STREAM || offset + plen > size)
        return 0;
    stream = packet + offset;
    s->words = stream[1];
    if (stream[0] || (s->words != STREAM / 4 && s->words != STAMPED / 4) || 4 * s->words >= plen)
        return 0;
    if ((get16(stream + 2) & ~PUSH) != ACK)
        return 0;
    s->stamp = 0;
    if (s->words == STAMPED / 4) {
        if (get32(stream + STREAM) != 0x08030000)
            return 0;
        s->stamp = get32(stream + STREAM + 4);
    }
    s->packet = packet;
    s->stream = stream;
    s->data = stream + 4 * s->words;
    s->size = plen - 4 * s->words;
    s->seq = get32(stream + 4);
    s->ack = get32(stream + 8);
    return 1;
}

/* Whether `next` is what follows the segments that `first` has become; `full` is the payload of each of them. */
static int follows(const struct segment *first, const struct segment *next, uint32_t full)
{
    uint32_t header = first->stream - first->packet;

    return first->size % full == 0 && next->size <= full && first->size + next->size <= JOINED && next->seq == first->seq + first->size &&
           next->words == first->words && header == (uint32_t)(next->stream - next->packet) &&
           !memcmp(first->packet, next->packet, 2) && !memcmp(first->packet + 4, next->packet + 4, header - 4) &&
           (int32_t)(next->ack - first->ack) >= 0 && (int32_t)(next->stamp - first->stamp) >= 0;
}

/* Joins neighbouring segments in the slab, payloads moved behind each other; one `train` for each frame or run
 * of joined ones, offsets from the slab's start. A lone frame's train has all of its packet as header. */
int xiatb_join(uint8_t *slab, unsigned count, const uint32_t *sizes, struct train *trains)
{
    struct segment first = {0}, next;
    uint32_t full = 0; /* 0: what comes cannot be joined to the last train */
    unsigned made = 0;

    if (count > BURST)
        return -EINVAL;
    for (unsigned i = 0; i < count; i++) {
        uint8_t *frame = slab + (size_t)i * SLOT;
        uint32_t size = sizes[i] < SLOT ? sizes[i] : SLOT, skipped = size < ETHERNET ? size : ETHERNET;
        int good = joinable(frame, size, &next);

        if (good && full && follows(&first, &next, full)) {
            struct train *train = trains + made - 1;

            memcpy(first.stream + 8, next.stream + 8, 8);
            if (next.words == STAMPED / 4)
                memcpy(first.stream + STREAM + 8, next.stream + STREAM + 8, 4);
            first.stream[3] |= next.stream[3] & PUSH;
            memmove(first.data + first.size, next.data, next.size); /* may overwrite the header of next */
            first.ack = next.ack;
            first.stamp = next.stamp;
            first.size += next.size;
            train->header = first.data - first.packet;
            train->payload_at = first.data - slab;
            train->payload = first.size;
            train->segments++;
            continue;
        }
        trains[made++] = (struct train){frame + skipped - slab, size - skipped, 0, 0, 1};
        full = good ? next.size : 0;
        first = next;
    }
    return made;
}

/* `xiatb_receive`, then `xiatb_join`. `frames` gets how many frames there were. */
int xiatb_receive_trains(int fd, uint8_t *slab, unsigned limit, uint32_t *sizes, struct train *trains,
                         uint32_t *frames)
{
    int got = xiatb_receive(fd, slab, limit, sizes);

    *frames = got > 0 ? got : 0;
    return got > 0 ? xiatb_join(slab, got, sizes, trains) : got;
}

/* The kernel has dropped this frame; the next may fare better. As `_DROPS` of batch.py. */
static int dropped(int error)
{
    return error == ENOBUFS || error == EAGAIN || error == ENETDOWN || error == ENXIO || error == ENODEV ||
           error == EMSGSIZE || error == ENETUNREACH;
}

/* Sends all messages; notes the numbers (from `first`) of those that are refused. 0, or -errno. */
static int flush(int fd, struct mmsghdr *messages, unsigned count, unsigned first, uint32_t *refused, int *failed)
{
    for (unsigned done = 0; done < count;) {
        int sent = sendmmsg(fd, messages + done, count - done, MSG_DONTWAIT);

        if (sent > 0) {
            done += sent;
        } else if (errno != EINTR) {
            if (!dropped(errno))
                return -errno;
            refused[(*failed)++] = first + done++;
        }
    }
    return 0;
}

/* Sends `count` frames that lie behind each other at `data`; how many were refused, and which. */
int xiatb_send(int fd, uint8_t *data, const uint32_t *sizes, unsigned count, uint32_t *refused)
{
    struct mmsghdr messages[BURST];
    struct iovec parts[BURST];
    int failed = 0, error;

    if (count > BURST)
        return -EINVAL;
    memset(messages, 0, count * sizeof *messages);
    for (unsigned i = 0; i < count; i++) {
        parts[i] = (struct iovec){data, sizes[i]};
        messages[i].msg_hdr.msg_iov = parts + i;
        messages[i].msg_hdr.msg_iovlen = 1;
        data += sizes[i];
    }
    error = flush(fd, messages, count, 0, refused, &failed);
    return error ? error : failed;
}

/* Cuts `payload` into segments of `mss` bytes and sends them. `head` is Ethernet, XIP and XSTREAM header of the
 * first; each gets its own length and sequence, PSH only the last. How many were refused, and which. */
int xiatb_send_train(int fd, const uint8_t *head, unsigned head_size, uint8_t *payload, size_t size, unsigned mss,
                     uint32_t *refused)
{
    struct mmsghdr messages[BURST];
    struct iovec parts[BURST][2];
    uint8_t heads[BURST][HEAD];
    const uint8_t *packet = head + ETHERNET;
    unsigned offset, number = 0, count = 0, total;
    uint32_t seq;
    int failed = 0, error;

    if (head_size < ETHERNET + FIXED || head_size > HEAD || !mss || mss > 0xFFFF || !size)
        return -EINVAL;
    offset = ETHERNET + FIXED + NODE * (packet[5] + packet[6]);
    if (offset + STREAM > head_size || head_size - offset + mss > 0xFFFF || (size + mss - 1) / mss > TRAIN)
        return -EINVAL;
    total = (size + mss - 1) / mss;
    seq = get32(head + offset + 4);
    memset(messages, 0, sizeof *messages * (total < BURST ? total : BURST));
    for (; number < total; number++) {
        uint8_t *own = heads[count];
        int last = number + 1 == total;
        size_t share = last ? size - (size_t)number * mss : mss;

        memcpy(own, head, head_size);
        put16(own + ETHERNET + 2, head_size - offset + share);
        put32(own + offset + 4, seq + number * mss);
        if (!last)
            own[offset + 3] &= ~PUSH;
        parts[count][0] = (struct iovec){own, head_size};
        parts[count][1] = (struct iovec){payload + (size_t)number * mss, share};
        messages[count].msg_hdr.msg_iov = parts[count];
        messages[count].msg_hdr.msg_iovlen = 2;
        if (++count == BURST || last) {
            error = flush(fd, messages, count, number + 1 - count, refused, &failed);
            if (error)
                return error;
            count = 0;
        }
    }
    return failed;
}

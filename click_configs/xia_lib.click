// Building blocks of XIA nodes. router.click, host.click and hypervisor.click put them together.
//
// Packets carry annotations between elements: `port` is the port they came in by, `out` the port they leave by
// (-1: the node itself), `nexthop` the neighbour that XARP resolves. `xiatb elements NAME` explains each element.

// Chooses which edge of a packet's destination DAG to try, and sorts by the type of the XID that it leads to.
//   input 0   start (again) at the last visited node
//   input 1   the edge that was tried leads nowhere: try the next one
//   output 0..7   AD, HID, SID, CID, IP, FID, NCID, ICID
//   output 8  no edge left: the destination cannot be reached
elementclass XIAPathSelect {
    type :: XIAXIDTypeClassifier(next AD, next HID, next SID, next CID,
                                 next IP, next FID, next NCID, next ICID, -);
    input    -> first :: XIASelectPath(first) -> type;
    input[1] -> again :: XIASelectPath(next)  -> type;
    type[0] -> output;      type[1] -> [1] output;  type[2] -> [2] output;  type[3] -> [3] output;
    type[4] -> [4] output;  type[5] -> [5] output;  type[6] -> [6] output;  type[7] -> [7] output;
    type[8] -> again;       // a principal type that this node does not know falls back
    first[1] -> [8] output;
    again[1] -> [8] output;
}

// What happens to packets that have arrived.
//   input 0   packets for an XID of this node
//   input 1   packets that went wrong: no route, hop limit, too big for a port, neighbour silent
//   output 0  to the port in `out`: packets for applications
//   output 1  XCMP messages of this node and packets that it sends on to hosts elsewhere, to be routed
elementclass XIALocal {
    input -> deliver :: XIADeliver -> output;
    deliver[1] -> rendezvous :: XIARendezvous;
    rendezvous[1] -> [1] output;
    rendezvous[2] -> [1] xcmp;
    rendezvous[0] -> intent :: XIAXIDTypeClassifier(dst SID:1110000000000000000000000000000000001112,
                                                 dst FID:ffffffffffffffffffffffffffffffffffffffff, -);
    intent[0] -> routing :: ToHost(routing);
    intent[1] -> routing;
    intent[2] -> proto :: XIANextHeaderClassifier(XCMP, XDGRAM, -);
    proto[0] -> xcmp :: XCMP -> [1] output;
    proto[1] -> ToHost(service);                    // questions to the name and rendezvous services, answers
    proto[2] -> nobody :: Discard;
    input[1] -> moved :: XIARedirect -> [1] output;  // for guests that have just left this node
    moved[1] -> [1] xcmp;
    xcmp[1]  -> ToHost(xcmp);
}

// A port with neighbours on it. $dev is its name, $num its number, $mtu the largest XIP packet it takes.
//   input 0   packets to send, with `nexthop`
//   output 0  XIP packets received, checked
//   output 1  packets that could not be sent, for XCMP
elementclass XIALineCard { $dev, $num, $mtu |
    in :: FromDevice($dev) -> fast :: XIAFastPath -> type :: Classifier(12/C0DE, 12/9990, 12/9991, -);
    type[0] -> check :: CheckXIAHeader -> Paint($num) -> output;
    type[1] -> op :: Classifier(20/0001, -);
    type[2] -> Paint($num) -> join :: ToHost(join);
    type[3] -> other :: Discard;                    // neither XIP, XARP nor XJOIN

    queue :: Queue(1000) -> device :: ToDevice($dev);
    op[0] -> ask :: Tee(2) -> xarpr :: XARPResponder($dev) -> queue;
    ask[1] -> [1] xarpq;                            // who asks us is a neighbour too
    op[1]  -> [1] xarpq;

    input -> mtu :: CheckXIAMTU($mtu) -> xarpq :: XARPQuerier($dev) -> queue;
    mtu[1]   -> [1] output;
    xarpq[1] -> [1] output;

    inject :: FromHost -> queue;                      // whole frames of the node: joins, routing messages
}

// A port to an IPv4 network: XIP crosses it in UDP (port 13781) to the router whose 4ID is the next hop. $mtu is the
// largest XIP packet it takes, $ip the own address with its prefix length, $gateway the IPv4 router for addresses
// beyond that prefix (0.0.0.0: none). Ports as XIALineCard.
elementclass XIAIPLineCard { $dev, $num, $mtu, $ip, $gateway |
    in :: FromDevice($dev) -> type :: Classifier(12/0800, 12/0806, -);
    type[0] -> decap :: XIAIPDecap($ip) -> check :: CheckXIAHeader -> Paint($num) -> output;
    type[1] -> ask :: Tee(2) -> arpr :: ARPResponder($dev, $ip) -> queue;
    ask[1]  -> [1] arpq;
    type[2] -> other :: Discard;                    // neither IPv4 nor ARP
    decap[1] -> strange :: Discard;                 // for others, or no XIP inside

    queue :: Queue(1000) -> device :: ToDevice($dev);
    input -> mtu :: CheckXIAMTU($mtu) -> encap :: XIAIPEncap($ip) -> arpq :: ARPQuerier($dev, $ip, $gateway) -> queue;
    mtu[1]   -> [1] output;
    encap[1] -> [1] output;
    arpq[1]  -> [1] output;

    inject :: FromHost -> queue;
}

// The port that leads to the node's own applications: no neighbours, so no XARP. Ports as XIALineCard.
elementclass XIAInternalCard { $dev, $num, $mtu |
    in :: FromDevice($dev) -> fast :: XIAFastPath -> type :: Classifier(12/C0DE, -);
    type[0] -> check :: CheckXIAHeader -> Paint($num) -> output;
    type[1] -> other :: Discard;

    queue :: Queue(1000) -> device :: ToDevice($dev);
    input -> mtu :: CheckXIAMTU($mtu) -> XIAEtherEncap($dev) -> queue;
    mtu[1] -> [1] output;

    inject :: FromHost -> queue;
}

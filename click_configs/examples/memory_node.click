// XIA nodes that live in memory, several in one process: for experiments with the forwarding alone.
// They have no ports of a machine; connect them by Link.
require(library xia_lib.click);

// A link with two directions: 0 -> 0 and 1 -> 1.
elementclass Link { $latency, $bandwidth |
    input    -> q0 :: Queue(200) -> l0 :: LinkUnqueue($latency, $bandwidth) -> output;
    input[1] -> q1 :: Queue(200) -> l1 :: LinkUnqueue($latency, $bandwidth) -> [1] output;
}

// What nodes do with packets for themselves and with those that go wrong.
//   input 0   packets for this node      output 0  XCMP messages to be routed
//   input 1   packets that went wrong    output 1  XCMP replies and errors for this node
elementclass MemoryLocal { $dag |
    input -> proto :: XIANextHeaderClassifier(XCMP, -) -> xcmp :: XCMP(DAG $dag) -> output;
    proto[1] -> nobody :: Discard;
    input[1] -> [1] xcmp;
    xcmp[1] -> [1] output;
}

// An end host with one link.
//   input 0   packets from the link      output 0  packets for the link
//   input 1   packets of the host        output 1  XCMP replies and errors for the host
elementclass MemoryHost { $ad, $hid |
    paths :: XIAPathSelect;
    local :: MemoryLocal("RE $ad $hid");
    input -> check :: CheckXIAHeader -> paths;
    input[1] -> paths;
    local[0] -> paths;
    local[1] -> [1] output;

    here :: XIANextHop -> dest :: XIACheckDest -> local;
    dest[1] -> paths;
    hops :: XIADecHLIM -> output;
    hops[1] -> [1] local;

    paths[0] -> rt_AD  :: XIAXIDRouteTable(AD,  - 0, $ad SELF) -> hops;
    paths[1] -> rt_HID :: XIAXIDRouteTable(HID, - 0, $hid SELF) -> hops;
    paths[2] -> rt_SID :: XIAXIDRouteTable(SID, - FALLBACK) -> hops;
    paths[3] -> rt_CID :: XIAXIDRouteTable(CID, - FALLBACK) -> hops;
    rt_AD[1] -> here;   rt_AD[2] -> [1] paths;
    rt_HID[1] -> here;  rt_HID[2] -> [1] paths;
    rt_SID[1] -> here;  rt_SID[2] -> [1] paths;
    rt_CID[1] -> here;  rt_CID[2] -> [1] paths;
    paths[4] -> [1] paths;  paths[5] -> [1] paths;  paths[6] -> [1] paths;  paths[7] -> [1] paths;
    paths[8] -> [1] local;
}

// A router. Its routes are set by handlers: NAME/rt_AD.set, NAME/rt_HID.set.
//   input 0   packets from the links     output 0  packets for the links, by `out`: an XIAPaintSwitch follows
elementclass MemoryRouter { $ad, $hid |
    paths :: XIAPathSelect;
    local :: MemoryLocal("RE $ad $hid");
    input -> check :: CheckXIAHeader -> paths;
    local[0] -> paths;
    local[1] -> Discard;

    here :: XIANextHop -> dest :: XIACheckDest -> local;
    dest[1] -> paths;
    hops :: XIADecHLIM -> output;
    hops[1] -> [1] local;

    paths[0] -> rt_AD  :: XIAXIDRouteTable(AD,  - FALLBACK, $ad SELF) -> hops;
    paths[1] -> rt_HID :: XIAXIDRouteTable(HID, - FALLBACK, $hid SELF) -> hops;
    paths[2] -> rt_SID :: XIAXIDRouteTable(SID, - FALLBACK) -> hops;
    paths[3] -> rt_CID :: XIAXIDRouteTable(CID, - FALLBACK) -> hops;
    rt_AD[1] -> here;   rt_AD[2] -> [1] paths;
    rt_HID[1] -> here;  rt_HID[2] -> [1] paths;
    rt_SID[1] -> here;  rt_SID[2] -> [1] paths;
    rt_CID[1] -> here;  rt_CID[2] -> [1] paths;
    paths[4] -> [1] paths;  paths[5] -> [1] paths;  paths[6] -> [1] paths;  paths[7] -> [1] paths;
    paths[8] -> [1] local;
}

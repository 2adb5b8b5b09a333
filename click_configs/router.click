// A router: forwards between its ports.
require(library xia_lib.click);

// input 0    XIP packets from the ports
// input 1    packets that a port could not send
// output 0   packets to send, by the port in `out`
elementclass XIARouterCore {
    paths :: XIAPathSelect;
    local :: XIALocal;
    input -> paths;
    from_host :: FromHost(xip) -> paths;            // packets of the node's own software
    local[1]  -> paths;                             // its XCMP messages

    here :: XIANextHop -> dest :: XIACheckDest;     // the XID is ours
    dest[0] -> local -> output;
    dest[1] -> paths;                               // ... and the DAG goes on from it

    forward :: XIADecHLIM -> output;
    forward[1] -> [1] local;
    input[1] -> [1] local;

    paths[0] -> rt_AD   :: XIAXIDRouteTable(AD,   - FALLBACK) -> forward;
    paths[1] -> rt_HID  :: XIAXIDRouteTable(HID,  - FALLBACK, self SELF) -> forward;
    paths[2] -> rt_SID  :: XIAXIDRouteTable(SID,  - FALLBACK,
                                            SID:1110000000000000000000000000000000001112 SELF) -> forward;
    paths[3] -> rt_CID  :: XIAXIDRouteTable(CID,  - FALLBACK) -> forward;
    paths[4] -> rt_IP   :: XIAXIDRouteTable(IP,   - FALLBACK) -> forward;
    paths[5] -> rt_FID  :: XIAXIDRouteTable(FID,  - FALLBACK,
                                            FID:ffffffffffffffffffffffffffffffffffffffff SELF) -> forward;
    paths[6] -> rt_NCID :: XIAXIDRouteTable(NCID, - FALLBACK) -> forward;
    paths[7] -> rt_ICID :: XIAXIDRouteTable(ICID, - FALLBACK) -> forward;
    paths[8] -> unreachable :: Counter -> [1] local;

    rt_AD[1]   -> here;    rt_AD[2]   -> [1] paths;
    rt_HID[1]  -> here;    rt_HID[2]  -> [1] paths;
    rt_SID[1]  -> here;    rt_SID[2]  -> [1] paths;
    rt_CID[1]  -> here;    rt_CID[2]  -> [1] paths;
    rt_IP[1]   -> here;    rt_IP[2]   -> [1] paths;
    rt_FID[1]  -> here;    rt_FID[2]  -> [1] paths;
    rt_NCID[1] -> here;    rt_NCID[2] -> [1] paths;
    rt_ICID[1] -> here;    rt_ICID[2] -> [1] paths;
}

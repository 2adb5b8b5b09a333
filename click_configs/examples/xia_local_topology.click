// host0 - router0 - router1 - host1 in one process, links of 5 ms: host0 pings host1.
//
//   xiatb click run click_configs/examples/xia_local_topology.click -t 1s -r ping.received -r ping.rtt
require(library memory_node.click);

define($AD0 AD:1000000000000000000000000000000000000000, $HID0 HID:0000000000000000000000000000000000000000,
       $AD1 AD:1000000000000000000000000000000000000001, $HID1 HID:0000000000000000000000000000000000000001,
       $RHID0 HID:0000000000000000000000000000000000000002, $RHID1 HID:0000000000000000000000000000000000000003);

host0 :: MemoryHost($AD0, $HID0);
host1 :: MemoryHost($AD1, $HID1);
router0 :: MemoryRouter($AD0, $RHID0);
router1 :: MemoryRouter($AD1, $RHID1);
Script(write router0/rt_AD.set $AD1 1, write router0/rt_HID.set $HID0 0,
       write router1/rt_AD.set $AD0 0, write router1/rt_HID.set $HID1 1);

link0, link1, link2 :: Link(5ms, 1GB/s);
host0 -> link0 -> router0;
router0 -> ports0 :: XIAPaintSwitch;
ports0[0] -> [1] link0 [1] -> host0;
ports0[1] -> link1 -> router1;
router1 -> ports1 :: XIAPaintSwitch;
ports1[0] -> [1] link1 [1] -> router0;
ports1[1] -> link2 -> host1;
host1 -> [1] link2 [1] -> router1;

ping :: XIAPingSource("RE $AD0 $HID0", "RE $AD1 $HID1", INTERVAL 100ms);
ping -> [1] host0;
host0[1] -> ping;
Idle -> [1] host1;
host1[1] -> Discard;

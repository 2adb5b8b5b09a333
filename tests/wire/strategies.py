"""Hypothesis strategies for XIDs, legal DAGs and the messages that carry them."""

from hypothesis import strategies as st

from xiatb.wire import migrate, xstream
from xiatb.wire.dag import DAG, MAX_EDGES
from xiatb.wire.xid import XID, XidType

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
u64 = st.integers(0, 2**64 - 1)
types = st.one_of(st.sampled_from([int(t) for t in XidType]), u32)
xids = st.builds(XID, types, st.binary(min_size=20, max_size=20))
macs = st.binary(min_size=6, max_size=6)
keys = xids.map(lambda xid: xid.key)


@st.composite
def graphs(draw, nodes=xids, max_nodes=20):
    """Return (nodes, edges, entry) of a legal address in topological order."""
    count = draw(st.one_of(st.integers(1, 5), st.integers(1, max_nodes)))
    names = [draw(nodes) for _ in range(count)]
    rows = [[] for _ in range(count + 1)]
    entry = rows[count]
    for node in range(count):
        fathers = [entry, *rows[:node]] if node else [entry]
        free = [row for row in fathers if len(row) < MAX_EDGES]
        draw(st.sampled_from(free)).append(node)
    for node in range(count - 1):
        for target in draw(st.lists(st.integers(node + 1, count - 1), max_size=2)):
            if len(rows[node]) < MAX_EDGES and target not in rows[node]:
                rows[node].insert(draw(st.integers(0, len(rows[node]))), target)
    return names, [tuple(row) for row in rows[:count]], tuple(entry)


dags = graphs().map(lambda graph: DAG(*graph))
small_dags = graphs(max_nodes=6).map(lambda graph: DAG(*graph))

migrates = st.builds(
    migrate.Migrate,
    seq=u64,
    dag=dags,
    public=st.binary(min_size=32, max_size=32),
    signature=st.binary(min_size=64, max_size=64),
    flags=u8,
)
acks = st.builds(
    migrate.MigrateAck,
    seq=u64,
    public=st.binary(min_size=32, max_size=32),
    signature=st.binary(min_size=64, max_size=64),
    flags=u8,
)


@st.composite
def stream_options(draw):
    """Return XSTREAM options that fit one header."""
    small = migrates.filter(lambda message: len(message.dag) <= 8)
    return xstream.Options(
        mss=draw(st.none() | u16),
        wscale=draw(st.none() | u8),
        sack_permitted=draw(st.booleans()),
        timestamp=draw(st.none() | st.tuples(u32, u32)),
        sack=tuple(draw(st.lists(st.tuples(u32, u32), max_size=4))),
        migrate=draw(st.none() | small.map(migrate.option_value)),
        migrate_ack=draw(st.none() | acks.map(migrate.option_value)),
        other=tuple(
            draw(
                st.lists(
                    st.tuples(st.integers(60, 255), st.binary(min_size=2, max_size=2)),
                    max_size=2,
                )
            )
        ),
    )


@st.composite
def stream_headers(draw):
    """Return an XSTREAM header with any options."""
    return xstream.Header(
        draw(st.integers(0, 0x1FF)), draw(u32), draw(u32), draw(u32), draw(stream_options())
    )

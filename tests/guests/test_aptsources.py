from xiatb.guests.aptsources import from_deb822, from_one_line, host_sources, proxy_options

DEB822 = """# a comment
Types: deb deb-src
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates trixie
Components: main contrib
Signed-By: /usr/share/keyrings/k.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://vendor.example/x
Suites: nodistro
Components: main

Types: deb
URIs: http://security.example/
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""

ONE_LINE = """
deb http://archive.example/debian bookworm main non-free  # with a comment
deb [arch=amd64 signed-by=/k.gpg] http://archive.example/debian bookworm-security main
deb-src http://archive.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb https://vendor.example/apt vendor-bookworm main
deb https://docker.example/debian bookworm stable
"""


def test_deb822():
    assert from_deb822(DEB822, "bookworm") == [
        "deb [signed-by=/usr/share/keyrings/k.gpg] http://archive.example/debian bookworm main",
        "deb [signed-by=/usr/share/keyrings/k.gpg] http://archive.example/debian bookworm-updates main",
        "deb http://security.example/ bookworm-security main",
    ]


def test_one_line():
    assert from_one_line(ONE_LINE, "bookworm") == [
        "deb http://archive.example/debian bookworm main",
        "deb [signed-by=/k.gpg] http://archive.example/debian bookworm-security main",
    ]


def test_host_sources_reads_both_places_once(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/ bookworm main\n")
    (tmp_path / "sources.list.d/b.list").write_text("deb http://a.example/ bookworm main\n")
    (tmp_path / "sources.list.d/c.sources").write_text(DEB822)
    (tmp_path / "sources.list.d/d.save").write_text("deb http://no.example/ bookworm main\n")
    found = host_sources("bookworm", tmp_path)
    assert found[0] == "deb http://a.example/ bookworm main"
    assert len(found) == 4


def test_proxy_options():
    dump = 'APT "";\nAcquire::http "";\nAcquire::http::Proxy "http://p:1/";\nAcquire::Check-Date "false";\n'
    assert proxy_options(dump) == ['Acquire::http::Proxy "http://p:1/";', 'Acquire::Check-Date "false";']

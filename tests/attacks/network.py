# ruff: noqa: E501 (programs stand on the lines on which they were written)
"""Ways out: by address, by name, by socket. `@...@` names what `tests.attacks.bench` offers on the host."""

from tests.attacks.attack import Attack, program

_BY_ADDRESS = program("""
    import socket
    def connect(family, address, kind=socket.SOCK_STREAM):
        with socket.socket(family, kind) as s:
            s.settimeout(0.2)
            s.connect(address)
            s.send(b'escaped')
    def f(x):
        return got_through(
            'ENETUNREACH EHOSTUNREACH ECONNREFUSED EADDRNOTAVAIL EAFNOSUPPORT EPERM EACCES',
            internet=lambda: connect(socket.AF_INET, ('1.1.1.1', 53)),
            datagram=lambda: connect(socket.AF_INET, ('8.8.8.8', 53), socket.SOCK_DGRAM),
            cloud=lambda: connect(socket.AF_INET, ('169.254.169.254', 80)),
            host=lambda: connect(socket.AF_INET, ('127.0.0.1', @port@)),
            host_address=lambda: connect(socket.AF_INET, ('@address@', @port@)),
            bridge=lambda: connect(socket.AF_INET, ('172.17.0.1', @port@)),
            six=lambda: connect(socket.AF_INET6, ('2606:4700:4700::1111', 53)),
            multicast=lambda: connect(socket.AF_INET, ('224.0.0.251', 5353), socket.SOCK_DGRAM),
        ) or 2 * x
""")
_BY_NAME = program("""
    import socket
    def f(x):
        return got_through('gaierror', dns=lambda: socket.getaddrinfo('example.com', 80),
            metadata=lambda: socket.gethostbyname('metadata.google.internal')) or 2 * x
""")
_UNIX = program("""
    import socket
    def connect(address):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(address)
    def f(x):
        return got_through('ECONNREFUSED ENOENT EACCES EPERM',
            path=lambda: connect('@socket_path@'), abstract=lambda: connect('\\0@abstract@'),
            docker=lambda: connect('/var/run/docker.sock'), containerd=lambda: connect('/run/containerd/containerd.sock'),
            bus=lambda: connect('/run/dbus/system_bus_socket')) or 2 * x
""")
_RAW = program("""
    import socket
    def f(x):
        return got_through('EPERM EACCES EAFNOSUPPORT EPROTONOSUPPORT ESOCKTNOSUPPORT ENOSYS EINVAL ENODEV',
            raw=lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1), packet=lambda: socket.socket(17, 3),
            bluetooth=lambda: socket.socket(31, 3, 1), vsock=lambda: socket.socket(40, 1).connect((2, 22)),
        ) or 2 * x
""")
_UP = program("""
    import fcntl, socket, struct
    def up():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            fcntl.ioctl(s, 0x8914, struct.pack('16sH22x', b'lo', 0))  # SIOCSIFFLAGS: takes loopback down
    def f(x):
        names = [name for _, name in socket.if_nameindex() if name not in ('lo', 'tunl0', 'sit0', 'ip6tnl0')]
        return names or got_through('EPERM EACCES', interface=up) or (
            'tunnel' if os.path.exists('/dev/net/tun') else 2 * x)
""")

ATTACKS = (
    Attack("network by address", _BY_ADDRESS, ("passed",)),
    Attack("network by name", _BY_NAME, ("passed",)),
    Attack("unix sockets of the host, by path and abstract", _UNIX, ("passed",)),
    Attack("raw, packet and other sockets", _RAW, ("passed",)),
    Attack("network interfaces", _UP, ("passed",)),
)

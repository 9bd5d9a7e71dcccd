# ruff: noqa: E501 (programs stand on the lines on which they were written)
"""Looking for secrets: the host's, the runner's, the judge's and other attempts'. `@...@`: see `tests.attacks.bench`."""

from tests.attacks.attack import Attack, program

_ENVIRONMENT = program("""
    def f(x):
        found = [name for name in os.environ if '@secret@' in os.environ[name]]
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                found += [pid] * (b'@secret@' in open(f'/proc/{pid}/environ', 'rb').read())
            except OSError:
                pass
        return found or got_through('EACCES EPERM', one=lambda: open('/proc/1/environ', 'rb').read()) or 2 * x
""")
_FILES = program("""
    def f(x):
        here = [path for path in ('@secret_file@', '@repository@/pyproject.toml', '/var/run/docker.sock',
            '/run/docker.sock', '/root/.ssh', '/root/.bash_history', '/var/run/secrets',
            '/tmp/ray', '/dev/mem', '/dev/kmem', '/dev/sda', '/dev/vda', '/dev/kmsg', '/dev/fuse', '/dev/kvm')
            if os.path.exists(path) and os.access(path, os.R_OK)]
        mounts = [line.split()[4] for line in open('/proc/self/mountinfo')
            if '@repository@' in line or 'docker.sock' in line]
        return here + mounts or got_through('EACCES EPERM ENOENT',
            shadow=lambda: open('/etc/shadow').read(), kcore=lambda: open('/proc/kcore', 'rb').read(1),
            memory=lambda: open('/dev/mem', 'rb').read(1), kmsg=lambda: open('/proc/kmsg', 'rb').read(1)) or 2 * x
""")
_OTHER_PROCESSES = program("""
    def f(x):
        mine = {1, os.getpid()}
        pids = {int(pid) for pid in os.listdir('/proc') if pid.isdigit()}
        neighbours = []
        for pid in pids - mine:
            parent = int(open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[1])
            uid = os.stat(f'/proc/{pid}').st_uid
            readable = os.access(f'/proc/{pid}/mem', os.R_OK) or os.access(f'/proc/{pid}/fd', os.R_OK)
            if readable:
                neighbours.append((pid, parent, uid))
        return neighbours or 2 * x
""")
_RUNNER_MEMORY = program("""
    def read(path):
        with open(path, 'rb') as file:
            return file.read(1)
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    def f(x):
        one = '/proc/1/'
        return got_through('EACCES EPERM ENOSYS ESRCH EIO',
            mem=lambda: read(one + 'mem'), maps=lambda: read(one + 'maps'), smaps=lambda: read(one + 'smaps'),
            fd=lambda: os.readlink(one + 'fd/0'), fdinfo=lambda: read(one + 'fdinfo/0'),
            request=lambda: os.open(one + 'fd/0', os.O_RDONLY), answer=lambda: os.open(one + 'fd/1', os.O_WRONLY),
            cwd=lambda: os.listdir(one + 'cwd'), root=lambda: os.listdir(one + 'root'), exe=lambda: os.readlink(one + 'exe'),
            stack=lambda: read(one + 'stack'), auxv=lambda: read(one + 'auxv'), pagemap=lambda: read(one + 'pagemap'),
            syscall=lambda: read(one + 'syscall'), namespace=lambda: os.open(one + 'ns/mnt', 0),
            readv=lambda: syscall('process_vm_readv', 1, vector, 1, vector, 1, 0),
            task=lambda: read(one + 'task/1/mem')) or 2 * x
""")
_MARKER = "swordfish"
_EARLIER = f"""
secret = '{_MARKER}' * 9
def f(x):
    kept = [secret + str(i) for i in range(999)]
    print(kept[:9])
    return 2 * x
"""
_MEMORY_OF_EARLIER = program(f"""
    import re
    needle = '{_MARKER[::-1]}'[::-1].encode() * 4
    def f(x):
        found = []
        own = id(needle)
        if x != 3:  # the second call would find what the first one left
            return 2 * x
        with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
            for line in maps:
                low, high = (int(part, 16) for part in line.split()[0].split('-'))
                if ' rw' not in line or '[v' in line:
                    continue
                memory.seek(low)
                try:
                    area = memory.read(high - low)
                except OSError:
                    continue
                found += [line.split()[-1] for hit in re.finditer(needle, area) if abs(low + hit.start() - own) > 99]
        return sorted(set(found)) or 2 * x
""")
_LEFT_FILES = "import os\ndef f(x):\n    open(f'/tmp/left{x}', 'w').write('mine')\n    return 2 * x"
_FIND_FILES = """
import os
def f(x):
    found = []
    for top in ('/tmp', '/dev', '/run', '/var', '/home', '/root', '/mnt', '/srv', '/etc'):
        for folder, folders, files in os.walk(top):
            folders[:] = [name for name in folders if name != 'python']
            found += [name for name in files if name.startswith('left')]
    return found or 2 * x
"""
_STACK = """
import gc, sys
def f(x):
    names = ('expected', 'tests', 'verdict', 'reward')
    found, frame = [], sys._getframe(1)
    while frame:
        found += [name for name in names if name in frame.f_locals or name in frame.f_globals]
        frame = frame.f_back
    return found or 2 * x
"""
_OBJECTS = """
import gc
def f(x):
    found = []
    for holder in gc.get_objects():
        try:
            if type(holder) is dict and any(name in holder for name in ('expected', 'reward', 'payload', 'tests')):
                found.append(str(holder)[:60])
            if type(holder) is list and x * 2 in holder and x + 17 not in holder and len(holder) < 4:
                found.append(str(holder)[:60])
        except Exception:
            pass
    return found or 2 * x
"""
_MODULES = program("""
    import importlib
    def load(name):
        try:
            return importlib.import_module(name)
        except ImportError:
            raise PermissionError(errno.EACCES, name)
    def f(x):
        names = ('env_workers', 'env_workers.code.judge', 'sdpo', 'sdpo.types', 'tests', 'tests.attacks', 'orchestrator',
            'ray', 'pydantic', 'docker', 'torch', 'pytest')
        return got_through('EACCES', **{name: (lambda name=name: load(name)) for name in names}) or 2 * x
""")

ATTACKS = (
    Attack("environment variables", _ENVIRONMENT, ("passed",)),
    Attack("mounted files and devices", _FILES, ("passed",)),
    Attack("/proc of other processes", _OTHER_PROCESSES, ("passed",)),
    Attack("the runner's memory and descriptors", _RUNNER_MEMORY, ("passed",)),
    Attack("an earlier program in inherited memory", _MEMORY_OF_EARLIER, ("passed",), before=_EARLIER),
    Attack("files of an earlier execution", _FIND_FILES, ("passed",), before=_LEFT_FILES),
    Attack("walks the stack into the tests", _STACK, ("passed",)),
    Attack("gc.get_objects for what is expected", _OBJECTS, ("passed",)),
    Attack("imports the judge and the tests", _MODULES, ("passed",)),
)

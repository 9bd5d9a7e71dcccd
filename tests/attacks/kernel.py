# ruff: noqa: E501 (programs stand on the lines on which they were written)
"""Interfaces of the kernel that a program has no business with, and the sandbox's own image."""

from tests.attacks.attack import Attack, program

_IMAGE = program("""
    def write(path):
        open(path, 'ab').close()
    def f(x):
        files = ['/x', '/usr/x', '/usr/bin/python3', '/etc/passwd', '/etc/ld.so.preload', '/bin/sh', '/dev/x', '/var/x',
            '/usr/lib/x', '/run/x', '/opt/x', '/home/x', '/sys/x', '/proc/x', os.__file__, '/usr/lib/python3/sitecustomize.py']
        actions = {path: (lambda path=path: write(path)) for path in files}
        return got_through('EROFS ETXTBSY EACCES EPERM ENOENT EXDEV EBUSY ENOTDIR', link=lambda: os.link(os.__file__, '/tmp/os.py'), remove=lambda:
            os.rmdir('/usr'), times=lambda: os.utime(os.__file__), mode=lambda: os.chmod('/usr', 0o755), **actions) or 2 * x
""")
_MOUNT = program("""
    def text(value):
        return ctypes.c_char_p(value)
    def f(x):
        return got_through('EPERM ENOSYS EACCES',
            tmpfs=lambda: syscall('mount', text(b'none'), text(b'/tmp'), text(b'tmpfs'), 0, ctypes.c_void_p()),
            remount=lambda: syscall('mount', text(b'none'), text(b'/'), text(b''), 32, ctypes.c_void_p()),
            bind=lambda: syscall('mount', text(b'/'), text(b'/tmp'), ctypes.c_void_p(), 4096, ctypes.c_void_p()),
            umount=lambda: syscall('umount2', text(b'/proc'), 2), chroot=lambda: os.chroot('/tmp'),
            pivot=lambda: syscall('pivot_root', text(b'/tmp'), text(b'/tmp')),
            fsopen=lambda: syscall('fsopen', text(b'tmpfs'), 0),
            open_tree=lambda: syscall('open_tree', -100, text(b'/'), 1),
            handle=lambda: syscall('open_by_handle_at', 3, text(b'x' * 64), 0)) or 2 * x
""")
_UNSHARE = program("""
    def clone(flags):
        if syscall('clone', flags | 17, 0, 0, 0, 0) == 0:
            os._exit(0)
    def f(x):
        user, mount, pid, net, ipc, uts, cgroup = 1 << 28, 1 << 17, 1 << 29, 1 << 30, 1 << 27, 1 << 26, 1 << 25
        flags = {'user': user, 'mount': mount, 'net': net, 'ipc': ipc, 'all': user | mount | pid | net | ipc | uts}
        actions = {f'unshare_{name}': (lambda flag=flag: syscall('unshare', flag)) for name, flag in flags.items()}
        actions |= {f'clone_{name}': (lambda flag=flag: clone(flag)) for name, flag in flags.items()}
        return got_through('EPERM ENOSYS ENOSPC EINVAL EUSERS',
            join=lambda: syscall('setns', os.open('/proc/self/ns/user', 0), 0),
            clone3=lambda: syscall('clone3', (ctypes.c_uint64 * 8)(user, 0, 0, 0, 17), 64) or os._exit(0),
            **actions) or 2 * x
""")
_KEYS = program("""
    def text(value):
        return ctypes.c_char_p(value)
    def f(x):
        return got_through('EPERM ENOSYS EACCES ENOKEY',
            join=lambda: syscall('keyctl', 1, ctypes.c_char_p()), session=lambda: syscall('keyctl', 0, -3, 1),
            user=lambda: syscall('add_key', text(b'user'), text(b'left'), text(b'mine'), 4, -4),
            big=lambda: syscall('add_key', text(b'user'), text(b'big'), text(b'x' * 20000), 20000, -5),
            request=lambda: syscall('request_key', text(b'user'), text(b'left'), ctypes.c_char_p(), -4)) or 2 * x
""")
_TRACE = program("""
    def attach(pid):
        return syscall('ptrace', 16, pid, 0, 0)
    def f(x):
        return got_through('EPERM ENOSYS EACCES ESRCH EIO EINVAL',
            one=lambda: attach(1), seize=lambda: syscall('ptrace', 0x4206, 1, 0, 0), parent=lambda: attach(os.getppid()),
            poke=lambda: syscall('process_vm_writev', 1, (ctypes.c_size_t * 2)(id(x), 8), 1,
                (ctypes.c_size_t * 2)(id(x), 8), 1, 0),
            compare=lambda: syscall('kcmp', os.getpid(), 1, 1, 0, 0), fd=lambda: open('/proc/1/fd/1', 'wb'),
            steal=lambda: syscall('pidfd_getfd', syscall('pidfd_open', 1, 0), 0, 0)) or 2 * x
""")
_BPF = program("""
    zeros = (ctypes.c_uint64 * 32)()
    def attributes(kind):
        ctypes.memset(zeros, 0, 256)
        ctypes.cast(zeros, ctypes.POINTER(ctypes.c_uint32))[0] = kind
        ctypes.cast(zeros, ctypes.POINTER(ctypes.c_uint32))[1] = 112
        return zeros
    def f(x):
        return got_through('EPERM ENOSYS EACCES',
            bpf=lambda: syscall('bpf', 0, (ctypes.c_uint32 * 32)(2, 4, 4, 1), 128),
            perf=lambda: syscall('perf_event_open', attributes(1), 0, -1, -1, 0),
            perf_of_one=lambda: syscall('perf_event_open', attributes(1), 1, -1, -1, 0),
            userfaultfd=lambda: syscall('userfaultfd', 0), io_uring=lambda: syscall('io_uring_setup', 4, attributes(0)),
            fanotify=lambda: syscall('fanotify_init', 0, 0)) or 2 * x
""")
_ADMIN = program("""
    import resource
    def more():
        try:
            resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))
        except ValueError:
            raise PermissionError(errno.EPERM, 'more')
    def write(path, data):
        with open(path, 'w') as file:
            file.write(data)
    def f(x):
        text = ctypes.c_char_p
        return got_through('EPERM ENOSYS EACCES EROFS ENOENT EINVAL',
            root=lambda: os.setuid(0), group=lambda: os.setgroups([0]), host=lambda: syscall('sethostname', text(b'x'), 1),
            domain=lambda: syscall('setdomainname', text(b'x'), 1),
            log=lambda: syscall('syslog', 3, ctypes.create_string_buffer(9), 9), acct=lambda: syscall('acct', text(b'/tmp')),
            swap=lambda: syscall('swapon', text(b'/tmp'), 0), module=lambda: syscall('init_module', 0, 0, text(b'')),
            kexec=lambda: syscall('kexec_load', 0, 0, 0, 0), reboot=lambda: syscall('reboot', 0, 0, 0, 0),
            device=lambda: os.mknod('/tmp/sda', 0o60666, os.makedev(8, 0)),
            nice=lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
            more=more,
            oom=lambda: write('/proc/self/oom_score_adj', '-1000'), maps=lambda: write('/proc/self/uid_map', '0 0 1'),
        ) or 2 * x
""")
_SYSCTL = program("""
    import glob
    def f(x):
        # Opened only: to write one of these would end the machine that is to be protected.
        folders = ('/proc/[a-z]*', '/proc/sys/kernel', '/proc/sys/vm', '/proc/sys/fs', '/proc/sys/net/ipv4', '/proc/irq', '/proc/acpi',
            '/sys/fs/cgroup', '/sys/fs/cgroup/*', '/sys/kernel', '/sys/kernel/mm/*', '/sys/module/*/parameters', '/sys/power')
        files = [path for folder in folders for path in glob.glob(folder + '/*') if os.path.isfile(path)]
        # The kernel gives everybody the pressure files.
        files = [path for path in files if not path.startswith(('/proc/self', '/proc/thread-self', '/proc/pressure'))]
        files += [path for path in glob.glob('/proc/[a-z]*') if os.path.isfile(path)]
        files += glob.glob('/proc/irq/*/smp_affinity') + glob.glob('/proc/sysrq-trigger') + glob.glob('/proc/bus/*/*/*')
        found = []
        for path in files:
            try:
                os.close(os.open(path, os.O_WRONLY))
            except OSError:
                continue
            found.append(path.replace('/', ' '))
        return found[:9] or 2 * x
""")
_RUNNERS_FILES = """
import os
def f(x):
    for who in ('1', 'self', 'thread-self', '1/task/1'):
        for name, data in (('oom_score_adj', '1000'), ('oom_adj', '15'), ('autogroup', '19'), ('timerslack_ns', '999999999'),
                           ('coredump_filter', '0'), ('clear_refs', '1'), ('comm', 'x'), ('timens_offsets', 'monotonic 9 9')):
            try:
                with open(f'/proc/{who}/{name}', 'w') as file:
                    file.write(data)
            except OSError:
                pass
    return 2 * x
"""
_SETUID = program("""
    import subprocess
    def f(x):
        status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
        found = [name for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb') if int(status[name], 16)]
        found += [] if status['NoNewPrivs'].strip() == '1' else ['new privileges']
        found += [] if status['Seccomp'].strip() == '2' else ['no filter']
        found += ['root'] if 0 in (os.getuid(), os.geteuid(), os.getgid()) else []
        for path in ('/bin/su', '/usr/bin/mount', '/usr/bin/newgrp', '/usr/bin/passwd'):
            if os.path.exists(path) and os.stat(path).st_mode & 0o4000:
                done = subprocess.run([path, '-c', 'id -u'], capture_output=True, stdin=subprocess.DEVNULL)
                found += [path] * (done.stdout.strip() == b'0')
        return found or 2 * x
""")
_UNCOUNTED = program("""
    def f(x):
        return got_through('EPERM ENOSYS EACCES ENOSPC EINVAL',
            memfd=lambda: syscall('memfd_create', ctypes.c_char_p(b'x'), 0),
            shm=lambda: syscall('shmget', 0, 1 << 20, 0o1600), queue=lambda: syscall('msgget', 0, 0o1600),
            semaphores=lambda: syscall('semget', 0, 1, 0o1600),
            named=lambda: syscall('mq_open', ctypes.c_char_p(b'x'), 0o102, 0o600, ctypes.c_void_p())) or 2 * x
""")
_EXECUTABLE = r"""
import os, subprocess
def f(x):
    with open('/tmp/tool', 'wb') as file:
        file.write(b'#!/bin/sh\necho $((2 * ' + str(x).encode() + b'))\n')
    os.chmod('/tmp/tool', 0o6755)
    try:
        return int(subprocess.check_output(['/tmp/tool']))
    except PermissionError:
        return 2 * x
"""

ATTACKS = (
    Attack("writes the image", _IMAGE, ("passed",)),
    Attack("mounts", _MOUNT, ("passed",)),
    Attack("new namespaces, user namespaces too", _UNSHARE, ("passed",)),
    Attack("kernel keys", _KEYS, ("passed",)),
    Attack("traces and writes the runner", _TRACE, ("passed",)),
    Attack("bpf, perf, io_uring, userfaultfd", _BPF, ("passed",)),
    Attack("administration", _ADMIN, ("passed",)),
    Attack("settings of the kernel", _SYSCTL, ("passed",)),
    Attack("files of the runner in /proc", _RUNNERS_FILES, ("passed",)),
    Attack("privileges and setuid programs", _SETUID, ("passed",)),
    Attack("memory and objects that no limit counts", _UNCOUNTED, ("passed",)),
    Attack("executes a file of its own", _EXECUTABLE, ("passed",)),
)

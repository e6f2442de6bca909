/*
 * Opens a device node by one of the ways that Linux has, and says what came of it:
 *
 *     ways WAY NODE FOLDER
 *
 * "decoy" if the device itself was opened, "simulated" if it was the simulated /dev/kvm, else the step that failed and
 * its errno. NODE is the absolute path of a character device, in FOLDER files can be made. Without arguments the names
 * of all ways are printed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *node, *folder, *base, *name; /* node is base/name */
static dev_t device;

static void verdict(int fd, const char *step)
{
    struct stat status;

    if (fd < 0)
        printf("%s: %s\n", step, strerrorname_np(errno));
    else if (fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == device)
        puts("decoy");
    else
        puts(ioctl(fd, KVM_GET_API_VERSION) == 12 ? "simulated" : "something else");
    fflush(stdout);
    _exit(0);
}

static int must(int result, const char *step)
{
    if (result < 0)
        verdict(-1, step);
    return result;
}

static char *text(const char *format, ...)
{
    va_list values;
    char *made;

    va_start(values, format);
    if (vasprintf(&made, format, values) < 0)
        abort();
    va_end(values);
    return made;
}

static int place(void) { return must(open(node, O_PATH), "O_PATH"); }

/* By name */

static int way_open(void) { return syscall(SYS_open, node, O_RDWR); }
static int way_openat(void) { return syscall(SYS_openat, AT_FDCWD, node, O_RDWR); }
static int way_creat(void) { return syscall(SYS_creat, node, 0600); }
static int way_dots(void) { return open(text("//%s/../%s/./%s", base, base, name), O_RDWR); }
static int way_dirfd(void) { return openat(must(open(base, O_PATH), "folder"), name, O_RDWR); }

static int way_openat2(void)
{
    struct open_how how = {.flags = O_RDWR};
    return syscall(SYS_openat2, AT_FDCWD, node, &how, sizeof how);
}

static int way_openat2_in_root(void)
{
    struct open_how how = {.flags = O_RDWR, .resolve = RESOLVE_IN_ROOT};
    return syscall(SYS_openat2, must(open(base, O_PATH), "folder"), text("/../%s", name), &how, sizeof how);
}

static int way_relative(void)
{
    must(chdir("/usr"), "chdir");
    return open(text("..%s", node), O_RDWR);
}

static int way_symlink(void)
{
    must(symlink(node, text("%s/one", folder)), "symlink");
    must(symlink("one", text("%s/two", folder)), "symlink");
    must(chdir(folder), "chdir");
    return open("two", O_RDWR);
}

static int way_symlink_on_the_way(void)
{
    must(symlink(base, text("%s/base", folder)), "symlink");
    return open(text("%s/base/%s", folder, name), O_RDWR);
}

/* Through /proc, whose "self" is another process to each */

static int way_proc_root(void) { return open(text("/proc/self/root%s", node), O_RDWR); }
static int way_thread_root(void) { return open(text("/proc/thread-self/root%s", node), O_RDWR); }
static int way_proc_self_fd(void) { return open(text("/proc/self/fd/%d", place()), O_RDWR); }
static int way_dev_fd(void) { return open(text("/dev/fd/%d", place()), O_RDWR); }
static int way_thread_fd(void) { return open(text("/proc/thread-self/fd/%d", place()), O_RDWR); }
static int way_proc_pid_fd(void) { return open(text("/proc/%d/fd/%d", getpid(), place()), O_RDWR); }
static int way_proc_dots(void) { return open(text("/proc/self/../self/fd/%d", place()), O_RDWR); }
static int way_task_fd(void) { return open(text("/proc/self/task/%d/fd/%d", gettid(), place()), O_RDWR); }

static int way_fd_folder(void)
{
    char *number = text("%d", place());
    return openat(must(open("/proc/self/fd", O_PATH), "folder"), number, O_RDWR);
}

static int way_fd_cwd(void)
{
    char *number = text("%d", place());
    must(chdir("/proc/self/fd"), "chdir");
    return open(number, O_RDWR);
}

static int way_symlink_to_fd(void)
{
    must(symlink(text("/proc/self/fd/%d", place()), text("%s/link", folder)), "symlink");
    return open(text("%s/link", folder), O_RDWR);
}

static int way_stdin(void)
{
    must(dup2(place(), 0), "dup2");
    return open("/dev/stdin", O_RDWR);
}

static int way_proc_cwd(void)
{
    must(chdir(base), "chdir");
    return open(text("/proc/self/cwd/%s", name), O_RDWR);
}

/* Past the names */

static int way_open_tree(void)
{
    int tree = must(syscall(SYS_open_tree, AT_FDCWD, node, 0), "open_tree");
    return open(text("/proc/self/fd/%d", tree), O_RDWR);
}

static int way_handle(void)
{
    struct file_handle *handle = calloc(1, sizeof *handle + MAX_HANDLE_SZ);
    int mount;

    handle->handle_bytes = MAX_HANDLE_SZ;
    must(name_to_handle_at(AT_FDCWD, node, handle, &mount, 0), "name_to_handle_at");
    return open_by_handle_at(must(open(base, O_RDONLY), "folder"), handle, O_RDWR);
}

static int way_io_uring(void)
{
    struct io_uring_params parameters = {0};
    int ring = must(syscall(SYS_io_uring_setup, 4, &parameters), "io_uring_setup");
    char *sq = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
    struct io_uring_sqe *entry = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    struct io_uring_cqe *done = (void *)(cq + parameters.cq_off.cqes);

    entry->opcode = IORING_OP_OPENAT;
    entry->fd = AT_FDCWD;
    entry->addr = (uintptr_t)node;
    entry->open_flags = O_RDWR;
    ((unsigned *)(sq + parameters.sq_off.array))[0] = 0;
    __atomic_store_n((unsigned *)(sq + parameters.sq_off.tail), 1, __ATOMIC_RELEASE);
    must(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0), "io_uring_enter");
    errno = done->res < 0 ? -done->res : 0;
    return done->res;
}

static char *low(const char *path)
{
    char *copy = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    return strcpy(copy, path);
}

static int int80(long number, long first, long second, long third)
{
    long result;

    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(first), "c"(second), "d"(third)
                     : "memory", "r8", "r9", "r10", "r11");
    errno = result < 0 ? -(int)result : 0;
    return result < 0 ? -1 : (int)result;
}

static int way_i386_open(void) { return int80(5, (long)low(node), O_RDWR, 0); }
static int way_i386_creat(void) { return int80(8, (long)low(node), 0600, 0); }
static int way_i386_openat(void) { return int80(295, (uint32_t)AT_FDCWD, (long)low(node), O_RDWR); }
static int way_x32_open(void) { return syscall(0x40000000 | SYS_open, node, O_RDWR); }
static int way_x32_openat(void) { return syscall(0x40000000 | SYS_openat, AT_FDCWD, node, O_RDWR); }

/* Another node of the same device */

static char *made(void)
{
    char *path = text("%s/made", folder);
    must(mknod(path, S_IFCHR | 0600, device), "mknod");
    return path;
}

static int way_mknod(void) { return open(made(), O_RDWR); }

static int way_rename(void)
{
    char *path = text("%s/renamed", folder);
    must(rename(made(), path), "rename");
    return open(path, O_RDWR);
}

static int way_link(void)
{
    char *path = text("%s/linked", folder);
    must(link(made(), path), "link");
    return open(path, O_RDWR);
}

static void of_its_own(int more)
{
    if (geteuid() != 0)
        must(unshare(CLONE_NEWUSER), "user namespace");
    must(unshare(CLONE_NEWNS | more), "mount namespace");
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
}

static char *bound(void)
{
    char *path = text("%s/bound", folder);
    close(must(open(path, O_CREAT | O_RDWR, 0600), "file"));
    must(mount(node, path, NULL, MS_BIND, NULL), "bind");
    return path;
}

static int way_bind_mount(void)
{
    of_its_own(0);
    return open(bound(), O_RDWR);
}

static int way_bind_mount_relative(void)
{
    of_its_own(0);
    bound();
    must(chdir(folder), "chdir");
    return open("bound", O_RDWR);
}

static int way_bind_mount_above_root(void)
{
    of_its_own(0);
    bound();
    must(mkdir(text("%s/root", folder), 0700), "mkdir");
    must(mount("/", text("%s/root", folder), NULL, MS_BIND, NULL), "bind root");
    return open(text("/proc/self/root/%s/root/../bound", folder), O_RDWR);
}

static int way_chroot(void)
{
    of_its_own(0);
    bound();
    must(symlink("/bound", text("%s/link", folder)), "symlink");
    must(chroot(folder), "chroot");
    must(chdir("/"), "chdir");
    return open("../link", O_RDWR);
}

static int child(int (*way)(void))
{
    pid_t pid = must(fork(), "fork");
    if (pid == 0)
        verdict(way(), "open");
    waitpid(pid, NULL, 0);
    _exit(0);
}

static int through_its_own_proc(void)
{
    must(mount("proc", "/proc", "proc", 0, NULL), "proc");
    return way_task_fd();
}

static int way_pid_namespace(void)
{
    of_its_own(CLONE_NEWPID);
    return child(through_its_own_proc);
}

/* From other processes and threads */

static int way_child(void) { return child(way_open); }

static int way_vfork(void)
{
    pid_t pid = vfork();

    if (pid == 0)
        verdict(way_open(), "open");
    waitpid(pid, NULL, 0);
    _exit(0);
}

static void *opened_by_thread(void *result)
{
    *(int *)result = way_open();
    return NULL;
}

static int way_thread(void)
{
    pthread_t thread;
    int result = -1;

    pthread_create(&thread, NULL, opened_by_thread, &result);
    pthread_join(thread, NULL);
    return result;
}

static int way_exec(void)
{
    if (getenv("AGAIN"))
        return way_open();
    setenv("AGAIN", "", 1);
    execl("/proc/self/exe", "ways", "exec", node, folder, NULL);
    return -1;
}

static int way_traced(void)
{
    int status;
    pid_t pid = must(fork(), "fork");

    if (pid == 0) {
        must(ptrace(PTRACE_TRACEME, 0, NULL, NULL), "ptrace");
        raise(SIGSTOP);
        verdict(way_open(), "open");
    }
    while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
        ptrace(PTRACE_CONT, pid, NULL, WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status));
    _exit(0);
}

static int way_not_dumpable(void)
{
    must(prctl(PR_SET_DUMPABLE, 0), "prctl");
    return way_open();
}

static const struct {
    const char *name;
    int (*go)(void);
} ways[] = {
#define WAY(name) {#name, way_##name}
    WAY(open), WAY(openat), WAY(creat), WAY(dots), WAY(dirfd), WAY(openat2), WAY(openat2_in_root), WAY(relative),
    WAY(symlink), WAY(symlink_on_the_way), WAY(proc_root), WAY(thread_root), WAY(proc_self_fd), WAY(dev_fd),
    WAY(thread_fd), WAY(proc_pid_fd), WAY(proc_dots), WAY(task_fd), WAY(fd_folder), WAY(fd_cwd), WAY(symlink_to_fd),
    WAY(stdin), WAY(proc_cwd), WAY(open_tree), WAY(handle), WAY(io_uring), WAY(i386_open), WAY(i386_creat),
    WAY(i386_openat), WAY(x32_open), WAY(x32_openat), WAY(mknod), WAY(rename), WAY(link), WAY(bind_mount),
    WAY(bind_mount_relative), WAY(bind_mount_above_root), WAY(chroot), WAY(pid_namespace), WAY(child), WAY(vfork),
    WAY(thread), WAY(exec), WAY(traced), WAY(not_dumpable),
};

int main(int count, char **arguments)
{
    struct stat status;
    char *slash;

    if (count < 4) {
        for (size_t at = 0; at < sizeof ways / sizeof *ways; at++)
            puts(ways[at].name);
        return 0;
    }
    node = arguments[2];
    folder = arguments[3];
    base = strdup(node);
    slash = strrchr(base, '/');
    *slash = 0;
    name = slash + 1;
    must(stat(node, &status), "stat");
    device = status.st_rdev;
    for (size_t at = 0; at < sizeof ways / sizeof *ways; at++)
        if (strcmp(ways[at].name, arguments[1]) == 0)
            verdict(ways[at].go(), "open");
    return 2;
}

/* Every command of the program where memory lacks, a file call fails, or the disk is full:
 *
 *     tests/faults [whole] [COMMAND...]        a sample of the paths, or all of them
 *     tests/faults one COMMAND SWEEP PLACE     one run again, with what it says
 *
 * A SWEEP runs a command again and again, each time in a process and a folder of its own, and lets
 * one call fail: of malloc, calloc, realloc (defined here, so that the C library's own fail, too),
 * or of a function that touches files (by the linker's --wrap). The PLACE of a call is its number.
 * Calls that come by the same path (the same return addresses up to main) differ in nothing that
 * matters: of each path the first two places are tried, also where commands share it. A run may
 * succeed all the same, with the very output of a run without a fault. Otherwise it must end with
 * status 1 and one sentence; a file that it writes is then absent, the old one, or whole. Never may
 * it crash, hang, leave a temporary file, write behind its memory or keep memory. Addresses that
 * are printed are for `addr2line -f -e tests/faults`. */
#define main steer_main
#include "../steer.c"
#undef main
#include <dirent.h>
#include <execinfo.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* ---------------------------------------------------------------- calls that fail */

/* ONCE: the call at `place` fails; ON: all from it on; FULL: no file grows past `place` bytes. */
enum { MEMORY_ONCE, MEMORY_ON, FILES_ONCE, FILES_ON, DISK_FULL, SWEEPS };

static const char *const sweep_names[SWEEPS] = {"memory", "memory-on", "files", "files-on", "disk"};

enum { PLACES = 1 << 17, DEPTH = 4 };

static struct shared { /* between this process and the one that runs the command */
    int sweep, fired, kept;
    long place, calls;               /* calls of the sweep's kind so far */
    uint64_t path[PLACES];           /* of each call, in a run without a fault */
    char what[64];                   /* the function that failed first */
    void *from[DEPTH], *leak[DEPTH]; /* who called it; who asked for what is kept */
} *run;

static int armed; /* in the process that runs a command */

/* The innermost return addresses in this program; a number for all of them. */
extern char __executable_start, etext;

static uint64_t trace(void **to) {
    void *all_frames[32];
    uint64_t path = 0;
    int found = 0, n = backtrace(all_frames, 32);
    for (int i = 2; i < n; i++) {
        char *at = all_frames[i];
        if (at < &__executable_start || at > &etext)
            continue;
        if (found < DEPTH)
            to[found++] = at;
        path = hash_of(path, &at, sizeof at);
    }
    return path;
}

static int fails(int once, const char *what) {
    if (!armed || (run->sweep != once && run->sweep != once + 1))
        return 0;
    void *from[DEPTH] = {0};
    long k = ++run->calls;
    if (!run->place && k < PLACES) {
        armed = 0;
        run->path[k] = trace(from);
        armed = 1;
    }
    if (!run->place || k < run->place || (k > run->place && run->sweep == once))
        return 0;
    if (!run->fired++) {
        armed = 0;
        snprintf(run->what, sizeof run->what, "%s", what);
        trace(run->from);
        armed = 1;
    }
    errno = once == MEMORY_ONCE ? ENOMEM : EIO;
    return 1;
}

/* An allocator that knows all its blocks and finds writes behind them. */
typedef struct chunk {
    struct chunk *next, *last;
    void *start; /* of what the C library gave */
    size_t size, armed;
    void *from[DEPTH];
} chunk; /* of a multiple of 16 bytes */

enum { SOUND = 0x5A, FREED = 0xDD, TAIL = 16 };

static chunk all = {.next = &all, .last = &all};
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static void *new_chunk(size_t n, int fill, size_t align) {
    size_t head = round_up(sizeof(chunk), align);
    char *start = n < SIZE_MAX / 2 ? __libc_memalign(align, head + n + TAIL) : NULL;
    if (!start)
        return NULL;
    chunk *c = (chunk *)(start + head) - 1;
    *c = (chunk){.next = all.next, .last = &all, .start = start, .size = n, .armed = (size_t)armed};
    all.next->last = c;
    all.next = c;
    if (c->armed && run->place) {
        armed = 0;
        trace(c->from);
        armed = 1;
    }
    memset(c + 1, fill, n);
    memset((char *)(c + 1) + n, SOUND, TAIL);
    return c + 1;
}

void *malloc(size_t n) {
    return fails(MEMORY_ONCE, "malloc") ? NULL : new_chunk(n, FREED, 16);
}

void *calloc(size_t n, size_t size) {
    return fails(MEMORY_ONCE, "calloc") ? NULL : new_chunk(mul(n, size), 0, 16);
}

void *aligned_alloc(size_t align, size_t n) {
    return fails(MEMORY_ONCE, "aligned_alloc") ? NULL : new_chunk(n, FREED, align);
}

void free(void *p) {
    chunk *c = (chunk *)p - 1;
    if (!p)
        return;
    for (int i = 0; i < TAIL; i++)
        if (((char *)p)[c->size + (size_t)i] != SOUND || c->next->last != c)
            abort();
    void *start = c->start;
    c->next->last = c->last;
    c->last->next = c->next;
    memset(p, FREED, c->size + TAIL);
    __libc_free(start);
}

void *realloc(void *p, size_t n) {
    void *q = fails(MEMORY_ONCE, "realloc") ? NULL : new_chunk(n, FREED, 16);
    size_t had = p ? ((chunk *)p - 1)->size : 0;
    if (q && p)
        memcpy(q, p, had < n ? had : n);
    if (q)
        free(p);
    return q;
}

/* The functions that touch files; the Makefile's list WRAPPED names the same. One that gives
 * something up does it, and fails all the same. */
#define WRAP(type, name, given, passed, failed, first) \
    type __real_##name given;                          \
    type __wrap_##name given;                          \
    type __wrap_##name given {                         \
        if (!fails(FILES_ONCE, #name))                 \
            return __real_##name passed;               \
        first;                                         \
        return failed;                                 \
    }
#define WRAP64(type, name, given, passed) /* also under the name for large files */ \
    WRAP(type, name, given, passed, -1, ) WRAP(type, name##64, given, passed, -1, )

static void mark(FILE *f) {
    f->_flags |= 0x20;
} /* what ferror tells, in glibc */
WRAP64(int, open, (const char *p, int f, int m), (p, f, m))
WRAP64(int, fcntl, (int fd, int what, void *p), (fd, what, p))
WRAP64(int, stat, (const char *p, void *s), (p, s))
WRAP64(int, fstat, (int fd, void *s), (fd, s))
WRAP64(int, ftruncate, (int fd, off_t n), (fd, n))
WRAP64(ssize_t, pread, (int fd, void *p, size_t n, off_t o), (fd, p, n, o))
WRAP64(ssize_t, pwrite, (int fd, const void *p, size_t n, off_t o), (fd, p, n, o))
WRAP(void *, mmap, (void *p, size_t n, int a, int b, int fd, off_t o), (p, n, a, b, fd, o),
     MAP_FAILED, )
WRAP(void *, mmap64, (void *p, size_t n, int a, int b, int fd, off_t o), (p, n, a, b, fd, o),
     MAP_FAILED, )
WRAP(int, close, (int fd), (fd), -1, __real_close(fd))
WRAP(ssize_t, read, (int fd, void *p, size_t n), (fd, p, n), -1, )
WRAP(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n), -1, )
WRAP(int, dup, (int fd), (fd), -1, )
WRAP(int, fsync, (int fd), (fd), -1, )
WRAP(int, access, (const char *p, int m), (p, m), -1, )
WRAP(int, rename, (const char *a, const char *b), (a, b), -1, )
WRAP(ssize_t, readlink, (const char *p, char *to, size_t n), (p, to, n), -1, )
WRAP(FILE *, fopen, (const char *p, const char *m), (p, m), NULL, )
WRAP(FILE *, fdopen, (int fd, const char *m), (fd, m), NULL, )
WRAP(int, fclose, (FILE * f), (f), EOF, __real_fclose(f))
WRAP(int, fflush, (FILE * f), (f), EOF, if (f) mark(f))
WRAP(size_t, fread, (void *p, size_t s, size_t n, FILE *f), (p, s, n, f), 0, mark(f))
WRAP(ssize_t, getline, (char **l, size_t *n, FILE *f), (l, n, f), -1, mark(f))
WRAP(ssize_t, __getdelim, (char **l, size_t *n, int c, FILE *f), (l, n, c, f), -1, mark(f))

/* What must have failed at least once, or the linker's names are others than these. */
static const char *const needed[] = {"malloc",        "calloc",    "realloc", "open",   "stat",
                                     "mmap",          "pread",     "pwrite",  "read",   "write",
                                     "close",         "fcntl",     "fsync",   "rename", "fflush",
                                     "aligned_alloc", "__getdelim"};

enum { NEEDED = sizeof needed / sizeof *needed };

static int met[NEEDED];

/* ---------------------------------------------------------------- commands */

/* In `line`, which is cut at spaces, ~ is a space; IN/ and OUT/ begin files. An output may, after a
 * failure, hold what was written before it (FIRST_LINES), or what the next run continues
 * (CONTINUED). */
enum { ALL_OF_IT, FIRST_LINES, CONTINUED };

#define M "weights/tiny-llama.bin"
#define STUDY " --data IN --limit 2 --max-new 4 "
#define BEHAVIOUR "--with IN/with --without IN/without"
#define PATCHED STUDY "--patch 1 --exact 0 "

static const struct command {
    const char *name, *line, *input;
    int kind;
} commands[] = {
    {"info", "info " M " --verify", "", ALL_OF_IT},
    {"tokenize", "tokenize " M " --chat a~cake", "", ALL_OF_IT},
    {"generate", "generate " M " How~do~I~bake~a~cake? --max-new 4", "", ALL_OF_IT},
    {"compare", "generate " M " a~cake --vector IN/v --freeze v --compare --max-new 4", "",
     ALL_OF_IT},
    {"jsonl", "generate " M " --prompts IN/some --jsonl OUT/jsonl --max-new 3", "", FIRST_LINES},
    {"places",
     "generate " M " - --vector IN/v --vector IN/v --freeze v@prompt,qk@first:2 --answer Well, "
     "--compare --max-new 4",
     "a cake\n", ALL_OF_IT},
    {"dashes", "generate " M " --raw --special --prompts - --jsonl - --max-new 3", "a cake\n",
     ALL_OF_IT},
    {"in-memory", "generate " M " a~cake --no-mmap --max-new 2", "", ALL_OF_IT},
    {"chat", "chat " M " --vector IN/v",
     "a cake\n/coeff 1\n/freeze v\n/positions prompt\n/vector IN/v\n"
     "/compare\n/status\nagain\n/reset\n",
     ALL_OF_IT},
    {"vector",
     "vector " M " --out OUT/v"
     " --data IN --train 2 --site 3,-1",
     "", ALL_OF_IT},
    {"gguf", "vector " M " --out OUT/v.gguf --data IN --train 2 --site 3,-1", "", ALL_OF_IT},
    {"npy", "vector " M " --out OUT/v.npy --data IN --train 2 --site 3,-1", "", ALL_OF_IT},
    {"taken", "generate " M " a~cake --vector IN/v.gguf --max-new 2", "", ALL_OF_IT},
    {"foreign", "generate " M " a~cake --vector IN/v.npy --foreign --site 2,-1 --max-new 2", "",
     ALL_OF_IT},
    {"behaviour",
     "vector " M " --out OUT/v " BEHAVIOUR " --judge IN/judge --first I,Sorry --site 1,0", "",
     ALL_OF_IT},
    {"ntp",
     "vector " M " --method ntp --out OUT/v --pairs 8 --epochs 1 --data IN --train 8 "
     "--limit 1 --max-new 24",
     "", ALL_OF_IT},
    {"evaluate", "evaluate " M " --vector IN/v --freeze qk@prompt" STUDY "--report OUT/r", "",
     ALL_OF_IT},
    {"freeze", "freeze " M " --vector IN/v" STUDY "--json", "", ALL_OF_IT},
    {"patch", "patch " M " --vector IN/v" PATCHED "--store OUT/store", "", CONTINUED},
    {"circuit", "circuit " M " --vector IN/v" PATCHED "--out OUT/c", "", ALL_OF_IT},
    {"faithful", "circuit " M " --vector IN/v" STUDY "--patch 1 --circuit IN/c", "", ALL_OF_IT},
    {"ov", "ov " M " --vector IN/v" PATCHED, "", ALL_OF_IT},
    {"sparsify", "sparsify " M " --vector IN/v" PATCHED, "", ALL_OF_IT},
    {"reproduce",
     "reproduce " M PATCHED "--train 2 --val 1 --map 1 --pairs 4 --epochs 1 "
     "--report OUT/r",
     "", ALL_OF_IT},
    {"merge", "merge IN/1 IN/2 --out OUT/store", "", ALL_OF_IT}};

enum { COMMANDS = sizeof commands / sizeof *commands };
static const struct command setup[] = {
    {"", "vector " M " --out IN/v --data IN --train 4", "", ALL_OF_IT},
    {"", "vector " M " --out IN/v.gguf --data IN --train 4 --site 3,-1", "", ALL_OF_IT},
    {"", "vector " M " --out IN/v.npy --data IN --train 4 --site 3,-1", "", ALL_OF_IT},
    {"", "circuit " M " --vector IN/v" PATCHED "--out IN/c", "", ALL_OF_IT},
    {"", "patch " M " --vector IN/v" PATCHED "--store IN/1 --shard 1/2", "", ALL_OF_IT},
    {"", "patch " M " --vector IN/v" PATCHED "--store IN/2 --shard 2/2", "", ALL_OF_IT}};

static char folder[] = "/tmp/steer-faults-XXXXXX";
static char said[1 << 16]; /* what a run said on stderr */

static void shell(const char *format, ...) {
    char command[512];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    if (system(command)) {
        printf("failed: %s\n", command);
        exit(1);
    }
}

/* Run a command once, with `run` as it is; what wait says of it. */
static int once(const struct command *c) {
    static char text[2048], *argv[64], out[4096], in[4096];
    int argc = 0, pipes[2], status;
    char *to = text;
    argv[argc++] = (char *)(uintptr_t)"steer";
    for (const char *s = c->line, *end; *s; s = end + strspn(end, " ")) {
        int kind = !strncmp(s, "IN", 2);
        if (!strncmp(s, "OUT", 3))
            kind = 2;
        end = s + strcspn(s, " ");
        argv[argc++] = to;
        if (kind) {
            to += sprintf(to, "%s/%s", folder, kind == 2 ? "out" : "in");
            s += kind + 1;
        }
        for (; s < end; s++)
            *to++ = *s == '~' ? ' ' : *s;
        *to++ = 0;
    }
    argv[argc] = NULL;
    run->fired = run->kept = 0;
    run->calls = 0;
    memset(run->from, 0, sizeof run->from);
    fflush(stdout);
    if (pipe(pipes))
        exit(1);
    pid_t child = fork();
    if (!child) {
        char path[64];
        struct rlimit limit = {(rlim_t)run->place, RLIM_INFINITY};
        alarm(120);
        snprintf(path, sizeof path, "%s/stdin", folder);
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (write(fd, c->input, strlen(c->input)) < 0 || lseek(fd, 0, SEEK_SET) || dup2(fd, 0))
            _exit(3);
        snprintf(path, sizeof path, "%s/out/stdout", folder);
        dup2(__real_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
        dup2(pipes[1], 2);
        for (fd = 3; fd < 16; fd++)
            __real_close(fd);
        setvbuf(stdout, out, _IOFBF, sizeof out);
        setvbuf(stdin, in, _IOFBF, sizeof in);
        signal(SIGXFSZ, SIG_IGN);
        if (run->sweep == DISK_FULL)
            setrlimit(RLIMIT_FSIZE, &limit);
        setenv("SOURCE_DATE_EPOCH", "0", 1); /* two reports differ in nothing else */
        tzset(); /* the C library keeps the time zone for itself, and looks for it once */
        armed = 1;
        int result = steer_main(argc, argv);
        armed = 0;
        for (chunk *k = all.next; k != &all; k = k->next)
            if (k->armed && !run->kept++)
                memcpy(run->leak, k->from, sizeof run->leak);
        fflush(stdout);
        _exit(result);
    }
    close(pipes[1]);
    size_t n = 0;
    for (ssize_t got; n < sizeof said - 1; n += (size_t)got) /* no more is ever said */
        if ((got = read(pipes[0], said + n, sizeof said - 1 - n)) <= 0)
            break;
    said[n] = 0;
    close(pipes[0]);
    waitpid(child, &status, 0);
    return status;
}

/* ---------------------------------------------------------------- what is right */

/* The bytes of folder/WHICH/NAME, to be freed; NULL: there is no such file. */
static char *bytes_of(const char *which, const char *name, size_t *n) {
    char path[320];
    snprintf(path, sizeof path, "%s/%s/%s", folder, which, name);
    char *bytes;
    load_file(path, &bytes, n, NULL);
    return bytes;
}

/* What is wrong with the files that a run left, beside those of a run without a fault; or NULL. */
static const char *wrong_files(int kind, int status) {
    static char text[400];
    char path[64];
    const char *wrong = NULL;
    for (int side = 0; side < 2 && !wrong; side++) { /* none too many; after success none too few */
        snprintf(path, sizeof path, "%s/%s", folder, side ? "right" : "out");
        DIR *d = opendir(path);
        for (struct dirent *f; !wrong && (f = readdir(d));) {
            size_t n[2] = {0, 0};
            if (*f->d_name == '.')
                continue;
            char *got = bytes_of("out", f->d_name, &n[0]);
            char *right = bytes_of("right", f->d_name, &n[1]);
            int old = got && !strcmp(got, "old"), is_stdout = !strcmp(f->d_name, "stdout");
            int start = got && right && n[0] <= n[1] && !memcmp(got, right, n[0]);
            int store = !strcmp(f->d_name, "store");
            int other_order = store && kind == CONTINUED; /* of its records */
            if (got && right && n[0] == n[1] && (start || other_order))
                ; /* whole */
            else if (got && store && status && !n[0])
                ; /* made, and not yet locked */
            else if (!right)
                wrong = "is left";
            else if (!status)
                wrong = got ? "is not what it should be" : "is missing";
            else if (got && !is_stdout && !old && kind == ALL_OF_IT)
                wrong = "is half written";
            else if (got && kind == FIRST_LINES && !old && !start)
                wrong = "holds other lines";
            if (wrong) {
                snprintf(text, sizeof text, "%s %s", f->d_name, wrong);
                wrong = text;
            }
            free(got);
            free(right);
        }
        closedir(d);
    }
    return wrong;
}

static const char *wrong_run(const struct command *c, int status, int sweep) {
    const char *told = strstr(said, "steer: ");
    int result = WEXITSTATUS(status), chat = !strcmp(c->name, "chat");
    if (WIFSIGNALED(status))
        return strsignal(WTERMSIG(status)); /* an alarm: it does not end */
    if (run->kept)
        return "memory is kept";
    if (result > 1)
        return "an exit status above 1";
    if (result && !told)
        return "no sentence that says why";
    if (result && strstr(told + 1, "steer: "))
        return "more than one sentence";
    if (!result && told && sweep != MEMORY_ONCE)
        return "a complaint, and status 0";
    if (result && sweep <= MEMORY_ON && !strstr(told, "memory"))
        return "no memory: not called so";
    if (chat && !result)
        return NULL; /* what goes wrong in a turn is said there, and one goes on */
    const char *wrong = wrong_files(c->kind, result);
    if (wrong || !result || c->kind != CONTINUED)
        return wrong;
    /* the same once more, now without a fault */
    run->sweep = MEMORY_ONCE;
    run->place = 0;
    status = once(c);
    run->sweep = sweep;
    if (status)
        return "what it left can't be continued";
    return wrong_files(CONTINUED, 0);
}

/* Old files stand where a run of an odd number writes. */
static void prepare(const struct command *c, long place) {
    shell("rm -rf %s/out && mkdir %s/out", folder, folder);
    int of_stores = strstr(c->line, "OUT/store") != NULL; /* an old one is read, not replaced */
    if (place % 2 == 0 || of_stores || !strstr(c->line, "OUT/"))
        return;
    shell("cd %s/right && for f in *; do [ $f = stdout ] || printf old >../out/$f; done", folder);
}

static long problems;

static void one_run(const struct command *c, int sweep, long place, int show) {
    prepare(c, place);
    run->sweep = sweep;
    run->place = place;
    int status = once(c), fired = run->fired;
    char first[1500], what[sizeof run->what];
    void *from[DEPTH];
    memcpy(from, run->from, sizeof from);
    memcpy(what, run->what, sizeof what);
    for (int i = 0; i < NEEDED && fired; i++) /* open64 is open */
        met[i] |= !strncmp(what, needed[i], strlen(needed[i]));
    snprintf(first, sizeof first, "%s", said);
    const char *wrong = wrong_run(c, status, sweep);
    if (show)
        printf("status %d; failed in %s; said: %s\n", WEXITSTATUS(status), what, first);
    if (!wrong && !show)
        return;
    problems += wrong != NULL;
    if (problems > 60 && !show)
        return;
    printf("  %s %s %ld: %s", c->name, sweep_names[sweep], place, wrong ? wrong : "right");
    if (fired)
        printf("; %s failed at", what);
    for (int i = 0; i < DEPTH && fired; i++)
        printf(" %p", from[i]);
    if (run->kept)
        printf("; kept: %d, from", run->kept);
    for (int i = 0; i < DEPTH && run->kept; i++)
        printf(" %p", run->leak[i]);
    first[strcspn(first, "\n")] = 0;
    printf("%s%.200s\n", *first ? "; said: " : "", first);
}

/* Whether a path was met fewer than two times in this sweep before. */
static int is_new(uint64_t path, int sweep) {
    enum { SIZE = 1 << 16 };

    static struct {
        uint64_t path;
        int met;
    } table[SIZE];

    path = hash_of(path, &sweep, sizeof sweep);
    size_t at = path % SIZE;
    while (table[at].met && table[at].path != path)
        at = (at + 1) % SIZE;
    table[at].path = path;
    return table[at].met++ < 2;
}

static long largest_output(void) {
    char path[320];
    struct stat st;
    long most = 0;
    snprintf(path, sizeof path, "%s/right", folder);
    DIR *d = opendir(path);
    for (struct dirent *f; (f = readdir(d));) {
        snprintf(path, sizeof path, "%s/right/%s", folder, f->d_name);
        if (*f->d_name != '.' && !stat(path, &st) && st.st_size > most)
            most = st.st_size;
    }
    closedir(d);
    return most;
}

/* A run without a fault, then one at each new place, or each `step`th of them; their number. */
static long sweep_command(const struct command *c, int sweep, int step) {
    long runs = 0, found = 0;
    run->sweep = sweep;
    run->place = sweep == DISK_FULL ? (long)1 << 40 : 0;
    prepare(c, 0);
    int status = once(c);
    if (status || run->kept || strstr(said, "steer: ")) {
        problems++;
        printf("  %s without a fault: status %d, %d kept, %s\n", c->name, status, run->kept, said);
        return 0;
    }
    shell("rm -rf %s/right && cp -r %s/out %s/right", folder, folder, folder);
    if (sweep == DISK_FULL) { /* a file ends early: nothing of it, a part, all but its last byte */
        long size = largest_output();
        for (int i = 0; i < 24 && size && step; i += step, runs++)
            one_run(c, sweep, (size - 1) * i / 23, 0);
        return runs;
    }
    long places = run->calls < PLACES ? run->calls : PLACES - 1;
    for (long k = 1; k <= places && step; k++)
        if (is_new(run->path[k], sweep) && found++ % step == 0) {
            one_run(c, sweep, k, 0);
            runs++;
        }
    return runs;
}

int main(int argc, char **argv) {
    int whole = argc > 1 && !strcmp(argv[1], "whole"), one = argc == 5 && !strcmp(argv[1], "one");
    int passed = 0, failed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    backtrace((void *[1]){0}, 1); /* loads what it needs */
    setenv("OMP_WAIT_POLICY", "passive", 1);
    run = mmap(NULL, sizeof *run, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (run == MAP_FAILED || !mkdtemp(folder)) {
        perror(folder);
        return 1;
    }
    shell("mkdir %s/in %s/out %s/right && for s in harmful harmless; do "
          "for t in train val test; do head -8 weights/$s-$t.txt >%s/in/$s-$t.txt; done; done && "
          "head -3 weights/harmful-val.txt >%s/in/some",
          folder, folder, folder, folder, folder);
    shell("cd %s/in; for i in a b c d; do echo '{\"prompt\": \"'$i'\", \"response\": \"Yes.\"}' "
          ">>with; "
          "echo '{\"prompt\": \"'$i'\", \"response\": \"No\"}' >>without; done; echo Yes >judge",
          folder);
    for (size_t i = 0; i < sizeof setup / sizeof *setup; i++)
        if (once(&setup[i])) {
            printf("steer %s: %s\n", setup[i].line, said);
            return 1;
        }
    for (int i = 0; i < COMMANDS; i++) {
        const struct command *c = &commands[i];
        int wanted = argc < 2 + whole;
        for (int k = 1; k < argc; k++)
            wanted |= !strcmp(argv[k], c->name);
        for (int sweep = 0; sweep < SWEEPS && wanted; sweep++) {
            int files = sweep == FILES_ONCE || sweep == FILES_ON; /* few, and quick */
            long before = problems, runs = 0;
            double started = seconds();
            if (one && strcmp(argv[3], sweep_names[sweep]))
                continue;
            if (one) {
                sweep_command(c, sweep, 0);
                one_run(c, sweep, atol(argv[4]), 1);
            } else
                runs = sweep_command(c, sweep, whole || files ? 1 : 8);
            int right = problems == before;
            printf("%s %s, %s: %ld runs, %ld wrong (%.1f s)\n", right ? "ok  " : "FAIL", c->name,
                   sweep_names[sweep], runs, problems - before, seconds() - started);
            passed += right;
            failed += !right;
        }
    }
    for (int i = 0; i < NEEDED && argc < 2 + whole; i++) {
        if (!met[i])
            printf("FAIL %s never failed: see WRAPPED in the Makefile\n", needed[i]);
        failed += !met[i];
    }
    shell("rm -rf %s", folder);
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}

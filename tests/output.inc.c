/* What the program writes, and where: included by test.c. */
#include <dirent.h>
#include <sys/resource.h>

/* ---------------------------------------------------------------- files */

/* A path in a folder of this test's own. */
static const char *in_folder(const char *folder, const char *name) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s/%s", temporary, folder, name);
    return path;
}

static void make_folder(const char *folder) {
    char command[256];
    snprintf(command, sizeof command, "rm -rf %s/%s && mkdir %s/%s", temporary, folder, temporary,
             folder);
    CHECK_THAT(!system(command), "%s", command);
}

/* The names in a folder that begin or end as a part of an output does, and how many there are. */
static int parts_in(const char *folder) {
    DIR *d = opendir(in_folder(folder, ""));
    int n = 0;
    for (struct dirent *x; d && (x = readdir(d));)
        n += strstr(x->d_name, ".part") != NULL;
    if (d)
        closedir(d);
    return n;
}

static int holds(const char *path, const char *text) {
    char found[4096];
    read_text(path, found, sizeof found);
    return !strcmp(found, text);
}

static mode_t mode_of(const char *path) {
    struct stat st;
    return stat(path, &st) ? 0 : st.st_mode & 07777;
}

static ino_t inode_of(const char *path) {
    struct stat st;
    return lstat(path, &st) ? 0 : st.st_ino;
}

static int is_link(const char *path) {
    struct stat st;
    return !lstat(path, &st) && S_ISLNK(st.st_mode);
}

static steer_status put_file(const char *path, const char *text, steer_error *e) {
    return write_file(path, text, strlen(text), e);
}

/* A regular file is replaced whole, with its mode, also behind links; no other name is left. */
static void check_replacing(void) {
    static const mode_t modes[] = {0600, 0640, 0644, 0755, 0666};
    steer_error e = {0};
    const char *file = in_folder("files", "file"), *new = in_folder("files", "new");
    mode_t mask = umask(027);
    CHECK_THAT(!put_file(new, "first", &e) && holds(new, "first"), "%s", e.text);
    CHECK_THAT(mode_of(new) == 0640, "a new file: mode %o", mode_of(new));
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        write_bytes(file, "an old text that is longer", 26);
        chmod(file, modes[i]);
        ino_t before = inode_of(file);
        CHECK_THAT(!put_file(file, "new", &e) && holds(file, "new"), "%s", e.text);
        CHECK_THAT(mode_of(file) == modes[i], "mode %o became %o", modes[i], mode_of(file));
        CHECK_THAT(inode_of(file) != before, "it was written in place");
    }
    umask(mask);

    static const char *const targets[][2] = {/* link, what it says */
                                             {"absolute", NULL},
                                             {"relative", "file"},
                                             {"chain", "relative"},
                                             {"up", "../files/file"}};
    for (int i = 0; i < 4; i++) {
        const char *link = in_folder("files", targets[i][0]);
        CHECK_THAT(!symlink(targets[i][1] ? targets[i][1] : file, link), "%s", link);
        CHECK_THAT(!put_file(link, targets[i][0], &e), "%s: %s", link, e.text);
        CHECK_THAT(is_link(link) && !is_link(file) && holds(file, targets[i][0]),
                   "%s is no link any more, or its target is not written", link);
    }
    CHECK_THAT(!symlink("nothing-yet", in_folder("files", "dangling")), "symlink");
    CHECK_THAT(!put_file(in_folder("files", "dangling"), "now", &e), "%s", e.text);
    CHECK_THAT(is_link(in_folder("files", "dangling")) &&
                   holds(in_folder("files", "nothing-yet"), "now"),
               "a dangling link");

    /* What killed runs have left is another's. */
    write_bytes(in_folder("files", "file.part0"), "left", 4);
    CHECK_THAT(!put_file(file, "once more", &e) && holds(file, "once more"), "%s", e.text);
    CHECK_THAT(holds(in_folder("files", "file.part0"), "left"), "another's part is gone");
    unlink(in_folder("files", "file.part0"));
    CHECK_THAT(parts_in("files") == 0, "%d parts are left", parts_in("files"));
}

/* Pipes and devices are written to as they are. */
static void check_special_files(void) {
    steer_error e = {0};
    char got[16] = "";
    const char *pipe_name = in_folder("files", "pipe");
    struct stat st;
    CHECK_THAT(!mkfifo(pipe_name, 0600), "mkfifo");
    int reader = open(pipe_name, O_RDONLY | O_NONBLOCK);
    CHECK_THAT(!put_file(pipe_name, "through", &e), "%s", e.text);
    CHECK_THAT(read(reader, got, sizeof got - 1) == 7 && !strcmp(got, "through"), "got \"%s\"",
               got);
    close(reader);
    CHECK_THAT(!stat(pipe_name, &st) && S_ISFIFO(st.st_mode), "the pipe was replaced");
    if (checks_failed)
        return; /* as root, what follows could replace this machine's devices */

    int ends[2];
    char name[32];
    CHECK_THAT(!pipe(ends), "pipe");
    snprintf(name, sizeof name, "/dev/fd/%d", ends[1]);
    CHECK_THAT(!put_file(name, "by number", &e), "%s", e.text);
    CHECK_THAT(read(ends[0], got, sizeof got - 1) == 9 && !memcmp(got, "by number", 9), "%s", got);
    close(ends[0]);
    close(ends[1]);
    CHECK_THAT(put_file(name, "x", &e) == STEER_EIO, "a closed descriptor");
    CHECK_THAT(!put_file("/dev/null", "x", &e) && !stat("/dev/null", &st) && S_ISCHR(st.st_mode),
               "/dev/null: %s", e.text);
    CHECK_THAT(put_file("/dev/full", "x", &e) == STEER_EIO && strstr(e.text, "No space") &&
                   !stat("/dev/full", &st) && S_ISCHR(st.st_mode),
               "/dev/full: %s", e.text);

    /* Where a descriptor stands in a file, what is written follows what was written. */
    const char *file = in_folder("files", "appended");
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    CHECK_THAT(write(fd, "one ", 4) == 4 && !put_file(name, "two", &e), "%s", e.text);
    CHECK_THAT(write(fd, " three", 6) == 6, "write");
    close(fd);
    CHECK_THAT(holds(file, "one two three"), "%s", file);
}

/* Whatever fails, the old file stays, and nothing beside it. */
static void write_too_much(void *path) {
    const struct rlimit small = {1000, 1000};
    char text[5000];
    memset(text, 'x', sizeof text);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    steer_error e = {0};
    if (write_file(path, text, sizeof text, &e) != STEER_EIO || !strstr(e.text, "too large"))
        _exit(1);
}

static void write_without_rights(void *path) {
    steer_error e = {0};
    if (!geteuid() && setresuid(65534, 65534, 65534))
        _exit(2);
    if (put_file(path, "x", &e) != STEER_EIO || !strstr(e.text, "ermission"))
        _exit(1);
    if (check_output(path, WHOLE, &e) != STEER_EIO)
        _exit(1);
}

static void check_failures(void) {
    steer_error e = {0};
    char name[300];
    const char *file = in_folder("files", "kept");
    write_bytes(file, "old", 3);
    const char *why = in_child(write_too_much, (void *)(uintptr_t)file, 20);
    CHECK_THAT(!why && holds(file, "old"), "a full disk: %s", why);

    chmod(file, 0444);
    why = in_child(write_without_rights, (void *)(uintptr_t)file, 20);
    CHECK_THAT(!why && holds(file, "old"), "a file that must not be written: %s", why);
    chmod(file, 0666);
    chmod(in_folder("files", ""), 0755);
    why = in_child(write_without_rights, (void *)(uintptr_t)file, 20);
    CHECK_THAT(!why && holds(file, "old"), "a folder that must not be written: %s", why);

    static const char *const impossible[] = {"",       "no/x",       "x/",          "files",
                                             "files/", "files/loop", "files/kept/x"};
    CHECK_THAT(!symlink("loop", in_folder("files", "loop")), "symlink");
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        snprintf(name, sizeof name, "%s/%s", temporary, impossible[i]);
        const char *path = *impossible[i] ? name : "";
        steer_status written = put_file(path, "x", &e), probed = check_output(path, WHOLE, &e),
                     lines = check_output(path, IN_PLACE, &e);
        CHECK_THAT(written == STEER_EIO && probed == STEER_EIO && lines == STEER_EIO,
                   "\"%s\" can be written: %d, probed: %d, %d", path, written, probed, lines);
    }
    for (int n = 250; n < 260; n++) { /* bytes of a name: at most 255 */
        int length = snprintf(name, sizeof name, "%s", in_folder("files", ""));
        memset(name + length, 'n', (size_t)n);
        name[length + n] = 0;
        steer_status written = put_file(name, "x", &e), probed = check_output(name, WHOLE, &e);
        CHECK_THAT(written == (n < 256 ? STEER_OK : STEER_EIO) && probed == written,
                   "a name of %d bytes: %d, probed %d", n, written, probed);
    }
    CHECK_THAT(parts_in("files") == 0, "%d parts are left", parts_in("files"));
}

/* A probe says what writing would, and leaves everything as it is. */
static void check_probes(void) {
    steer_error e = {0};
    const char *file = in_folder("files", "probed"), *new = in_folder("files", "absent");
    write_bytes(file, "old", 3);
    ino_t before = inode_of(file);
    for (int how = WHOLE; how <= IN_PLACE; how++) {
        CHECK_THAT(!check_output(file, how, &e) && holds(file, "old") && inode_of(file) == before,
                   "a probe changes a file: %s", e.text);
        CHECK_THAT(!check_output(new, how, &e) && !exists(new), "a probe leaves a file: %s",
                   e.text);
        CHECK_THAT(!check_output(in_folder("files", "pipe"), how, &e), "a pipe: %s", e.text);
        CHECK_THAT(!check_output("/dev/null", how, &e), "/dev/null: %s", e.text);
    }
    CHECK_THAT(parts_in("files") == 0, "%d parts are left", parts_in("files"));
}

/* Signals that end a program wait until a file is whole. */
typedef struct {
    const char *path;
    int signal_number, ignored;
} interruption;

static void write_interrupted(void *argument) {
    const interruption *x = argument;
    held_signals held;
    output o;
    if (x->ignored)
        signal(x->signal_number, SIG_IGN);
    hold_signals(&held);
    int ok = open_output(&o, x->path, WHOLE) && write_all(o.fd, "wh", 2);
    kill(getpid(), x->signal_number);
    ok = ok && write_all(o.fd, "ole", 3);
    ok = close_output(&o, ok);
    release_signals(&held);
    _exit(ok && x->ignored ? 0 : 1); /* unless it was ignored, it has ended us */
}

static void check_signals(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (int i = 0; i < 6; i++) {
        interruption x = {in_folder("files", "interrupted"), numbers[i >> 1], i & 1};
        unlink(x.path);
        const char *why = in_child(write_interrupted, &x, 20);
        CHECK_THAT(x.ignored ? !why : why && !strcmp(why, "a signal ended it"), "signal %d%s: %s",
                   x.signal_number, x.ignored ? ", ignored" : "", why ? why : "it goes on");
        CHECK_THAT(holds(x.path, "whole") && parts_in("files") == 0, "half a file, or a part");
    }
}

static void test_output_files(void) {
    make_folder("files");
    check_replacing();
    check_special_files();
    check_failures();
    check_probes();
    check_signals();
}

/* ---------------------------------------------------------------- standard output */

/* Where standard output leads in a run of the program. */
enum { TO_FULL_DISK, TO_CLOSED_PIPE, TO_NOTHING, ENDS };

static const char *const end_names[ENDS] = {"a full disk", "a closed pipe", "nothing"};

/* Exit status; what it says on standard error is in `complained`. */
static int run_to_end(const char *arguments, const char *input, int end) {
    char command[2048];
    int pipe_ends[2];
    const char *to = end == TO_NOTHING ? ">&-" : "";
    if (end == TO_FULL_DISK)
        to = ">/dev/full";
    write_bytes(in_temporary("in"), input, strlen(input));
    snprintf(command, sizeof command, "exec timeout 100 %s %s <%s/in 2>%s/err %s", PROGRAM,
             arguments, temporary, temporary, to);
    if (pipe(pipe_ends))
        return -1;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        dup2(pipe_ends[1], 1);
        close(pipe_ends[0]);
        close(pipe_ends[1]);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(pipe_ends[0]); /* before the program begins: so is its own copy by now, or soon */
    close(pipe_ends[1]);
    int status = 0;
    waitpid(child, &status, 0);
    read_text(in_temporary("err"), complained, sizeof complained);
    if (strstr(complained, "Sanitizer") || strstr(complained, "runtime error"))
        CHECK_THAT(0, "%s:\n%.1500s", arguments, complained);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static int complaints(void) { /* sentences on standard error that begin with "steer: " */
    int n = 0;
    for (const char *s = complained; (s = strstr(s, "steer: ")); s++)
        n += s == complained || s[-1] == '\n';
    return n;
}

/* A short set of the experiments. */
#define SHORT "--limit 2 --patch 1 --exact 0 --max-new 6"

static void test_dead_output(void) {
    static const struct {
        const char *arguments, *input;
    } commands[] = {
        {"help", ""},
        {"help reproduce", ""},
        {"info weights/tiny-llama.bin", ""},
        {"tokenize weights/tiny-llama.bin \"a cake\"", ""},
        {"generate weights/tiny-llama.bin \"a cake?\" --max-new 4", ""},
        {"generate weights/tiny-llama.bin \"a cake?\" --max-new 4 --compare --vector %s/v", ""},
        {"generate weights/tiny-llama.bin --prompts weights/harmful-val.txt --max-new 2", ""},
        {"chat weights/tiny-llama.bin", "hi\nand you?\n"},
        {"vector weights/tiny-llama.bin --train 8 --site 3,-1 --out %s/w", ""},
        {"evaluate weights/tiny-llama.bin --vector %s/v --limit 2 --max-new 6", ""},
        {"freeze weights/tiny-llama.bin --vector %s/v --limit 2 --patch 1 --max-new 6", ""},
        {"patch weights/tiny-llama.bin --vector %s/v " SHORT, ""},
        {"circuit weights/tiny-llama.bin --vector %s/v " SHORT, ""},
        {"ov weights/tiny-llama.bin --vector %s/v " SHORT, ""},
        {"sparsify weights/tiny-llama.bin --vector %s/v " SHORT, ""},
        {"reproduce weights/tiny-llama.bin --quick --train 8 --val 2 --map 0 " SHORT, ""},
        {"evaluate weights/tiny-llama.bin --vector %s/v --limit 2 --max-new 6 --json", ""},
        {"merge %s/store --out %s/joint", ""}};

    char arguments[512];
    make_vector_file("v");
    snprintf(arguments, sizeof arguments,
             "evaluate weights/tiny-llama.bin --vector %s/v --limit 2 --max-new 6 --store %s/store",
             temporary, temporary);
    CHECK_THAT(!run_program(PROGRAM, arguments, ""), "%s", complained);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        for (int end = 0; end < ENDS; end++) {
            snprintf(arguments, sizeof arguments, commands[i].arguments, temporary, temporary);
            int status = run_to_end(arguments, commands[i].input, end);
            CHECK_THAT(status == 1, "`steer %s` to %s: status %d, \"%.300s\"", arguments,
                       end_names[end], status, complained);
            if (end == TO_CLOSED_PIPE) /* whoever closed it knows */
                CHECK_THAT(!complaints(), "`steer %s` to %s: \"%.300s\"", arguments, end_names[end],
                           complained);
            else
                CHECK_THAT(complaints() == 1 && strstr(complained, "standard output"),
                           "`steer %s` to %s: \"%.300s\"", arguments, end_names[end], complained);
        }

    /* Found after the first table, not after the last: nothing is patched. */
    for (int end = 0; end < ENDS; end++) {
        run_to_end("reproduce weights/tiny-llama.bin --quick --train 8 --val 2 --map 0 " SHORT, "",
                   end);
        CHECK_THAT(strstr(complained, "of memory") && !strstr(complained, "patching takes"),
                   "it goes on: %.300s", complained);
    }

    /* A report of which memory lacked a part is none. */
    report lost = {.f = tmpfile()};
    steer_error e = {0};
    add_note(&lost, "a sentence");
    CHECK_THAT(!report_status(&lost, &e), "%s", e.text);
    lost.no_memory = 1;
    add_note(&lost, "another");
    const char *saved = in_temporary("lost.json");
    CHECK_THAT(report_status(&lost, &e) == STEER_ENOMEM && strstr(e.text, "no memory"), "%s",
               e.text);
    CHECK_THAT(save_report(&lost, NULL, saved, &e) == STEER_ENOMEM && !exists(saved),
               "half a report is saved");
    fclose(lost.f);
    free_report(&lost);
}

/* /dev/stdout is standard output, wherever that leads, and stays what it is. */
static void test_dev_stdout(void) {
    char command[1024];
    struct stat before, after;
    if (lstat("/dev/stdout", &before)) {
        CHECK_THAT(0, "this machine has no /dev/stdout");
        return;
    }
    if (write_file(in_temporary("no/such"), "", 0, NULL) != STEER_EIO)
        return;
    make_vector_file("direct");
    size_t n;
    char *direct = read_file(in_temporary("direct"), &n, NULL);
    for (int to_file = 0; to_file < 2; to_file++) {
        snprintf(command, sizeof command,
                 "%s vector weights/tiny-llama.bin --train 8 --site 3,-1 --coeff 2 --out "
                 "/dev/stdout 2>/dev/null %s%s/stdout",
                 PROGRAM, to_file ? ">" : "| cat >", temporary);
        CHECK_THAT(!system(command), "%s", command);
        size_t size;
        char *all = read_file(in_temporary("stdout"), &size, NULL);
        char *vector = all ? memmem(all, size, direct, n) : NULL;
        char *text = all ? memmem(all, size, "/dev/stdout: dim, block 3", 25) : NULL;
        CHECK_THAT(vector && text && vector < text && vector > all + 50,
                   "%s: the vector is not there between the sentences", to_file ? "file" : "pipe");
        free(all);
    }
    CHECK_THAT(!lstat("/dev/stdout", &after) && before.st_ino == after.st_ino &&
                   before.st_mode == after.st_mode,
               "/dev/stdout was replaced");
    free(direct);
}

/* ---------------------------------------------------------------- found before the work */

static void test_found_early(void) {
    static const char *const sets[] = {"harmful-train", "harmless-train", "harmful-val",
                                       "harmless-val",  "harmful-test",   "harmless-test"};

    static const refused_command refused[] = {
        {1, "vector weights/tiny-llama.bin --site 3,-1 --out %s/no/w", "no/w: can't be written"},
        {1, "vector weights/tiny-llama.bin --site 3,-1 --out %s", "directory"},
        {1, "vector weights/tiny-llama.bin --site 3,-1 --out %s/kept --report %s/no/r", "no/r"},
        {1, "circuit weights/tiny-llama.bin --vector %s/v --out %s/no/c", "no/c"},
        {1, "evaluate weights/tiny-llama.bin --vector %s/v --report %s/no/r", "no/r.json"},
        {1, "evaluate weights/tiny-llama.bin --vector %s/v --report %s/blocked", "blocked.json"},
        {1, "evaluate weights/tiny-llama.bin --vector %s/v --store %s/no/s", "no/s"},
        {1, "generate weights/tiny-llama.bin --prompts %s/many --jsonl %s/no/x", "no/x"},
        {1, "generate weights/tiny-llama.bin --prompts %s/many --jsonl %s", "directory"},
        {1, "vector weights/tiny-llama.bin --site 99,-1 --out %s/kept", "site 99,-1"},
        {1, "vector weights/tiny-llama.bin --site 3,-9 --out %s/kept", "site 3,-9"},
        {2, "vector weights/tiny-llama.bin --site 3,0 --out %s/kept", "the prompts have none"},
        {1, "reproduce weights/tiny-llama.bin --site 99,-1 --report %s/kept", "site 99,-1"},
        {1, "reproduce weights/tiny-llama.bin %s/small.bin --data weights --site 3,-1",
         "site 3,-1: small"},
        {1, "reproduce weights/tiny-llama.bin %s/missing.bin --report %s/kept", "missing.bin"},
        {1, "reproduce weights/tiny-llama.bin weights/tiny-gemma.bin README.md", "README.md"},
        {1, "reproduce weights/tiny-llama.bin %s", "regular"},
        {1, "reproduce weights/tiny-llama.bin %s/small.bin", "harmful-train"},
        {1, "reproduce weights/tiny-llama.bin --data %s/no", "harmful-train"}};

    steer_vector v;
    steer_error e = {0};
    steer_model *m = open_or_fail("weights/tiny-llama.bin");
    image small = small_image(F32, 0);
    if (!m)
        return;
    make_folder("early");
    make_vector_file("early/v");
    char folder[128];
    snprintf(folder, sizeof folder, "%s/early", temporary);
    write_bytes(in_folder("early", "small.bin"), small.bytes, small.size);
    write_bytes(in_folder("early", "many"), "How?\nWhy?\n", 10);
    const char *const kept[] = {"kept", "kept.json", "kept.html"};
    for (int i = 0; i < 3; i++)
        write_bytes(in_folder("early", kept[i]), "old", 3);
    CHECK_THAT(!mkdir(in_folder("early", "blocked.json"), 0700), "mkdir");
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const char *arguments = refused[i].arguments;
        command_is_refused(&refused[i], folder);
        /* Before the work: that says how much memory it takes, and prints tables. */
        CHECK_THAT(lines_of(complained) == 1 && !*shown, "`steer %s`: \"%.300s\", \"%.300s\"",
                   arguments, complained, shown);
        for (int k = 0; k < 3; k++)
            CHECK_THAT(holds(in_folder("early", kept[k]), "old"), "`steer %s`: %s is changed",
                       arguments, kept[k]);
    }

    /* Each of the six files of prompts without a prompt. */
    for (int i = 0; i < 6; i++) {
        char name[64];
        for (int k = 0; k < 6; k++) {
            const char *text = k == i ? "\n\n" : "How?\nWhy?\n";
            snprintf(name, sizeof name, "%s.txt", sets[k]);
            write_bytes(in_folder("early", name), text, strlen(text));
        }
        snprintf(name, sizeof name, "%s.txt: no prompts", sets[i]);
        /* the second model's prompts lie beside it */
        command_is_refused(
            &(refused_command){1, "reproduce weights/tiny-llama.bin %s/small.bin", name}, folder);
        CHECK_THAT(lines_of(complained) == 1 && !*shown, "%s: \"%.300s\", \"%.300s\"", name,
                   complained, shown);
    }
    CHECK_THAT(parts_in("early") == 0, "%d parts are left", parts_in("early"));
    CHECK_THAT(!steer_vector_load(&v, in_folder("early", "v"), m, 0, &e), "%s", e.text);
    steer_vector_free(&v);
    steer_close(m);
    free(small.bytes);
}

/* Control characters that a terminal could obey: all but newlines and tabs, C1 as well. */
static int controls_in(const char *s) {
    int n = 0, length;
    for (const char *end = s + strlen(s); s < end; s += length) {
        size_t own = strlen("\r\033[K"); /* of progress */
        if (!strncmp(s, "\r\033[K", own)) {
            length = (int)own;
            continue;
        }
        long c = code_point(s, end, &length);
        n += c < 0 || (c < 32 && c != '\n' && c != '\t') || (c >= 127 && c < 160);
    }
    return n;
}

/* ---------------------------------------------------------------- progress on a terminal */

/* On a terminal no line of progress is left standing where a table or a sentence begins; where
 * standard error is none, there is no progress. */
static void test_progress(void) {
    static const char command[] = "weights/tiny-llama.bin --quick --train 8 --val 2 --map 0 " SHORT;
    static char text[1 << 17];
    size_t n = 0;
    char line[1024];
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0 || grantpt(terminal) || unlockpt(terminal)) {
        CHECK_THAT(0, "this machine has no terminals");
        return;
    }
    snprintf(line, sizeof line, "exec %s reproduce %s >%s 2>&1 </dev/null", PROGRAM, command,
             ptsname(terminal));
    int slave = open(ptsname(terminal), O_RDWR | O_NOCTTY); /* keeps it open for us */
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    int status = -1, ended = 0;
    struct pollfd ready = {terminal, POLLIN, 0};
    while (n < sizeof text - 1) {
        if (poll(&ready, 1, ended ? 0 : 50) > 0) {
            ssize_t got = read(terminal, text + n, sizeof text - 1 - n);
            n += got > 0 ? (size_t)got : 0;
        } else if (ended)
            break;
        else
            ended = waitpid(child, &status, WNOHANG) == child;
    }
    text[n] = 0;
    close(slave);
    close(terminal);
    int shown_lines = 0;
    for (const char *s = text; (s = strstr(s, " left ")); shown_lines++) {
        s += strlen(" left ");
        CHECK_THAT(*s == '\r', "behind a line of progress stands \"%.60s\"", s);
    }
    CHECK_THAT(!status && shown_lines > 5 && strstr(text, "Freezing"), "status %d, %d lines",
               status, shown_lines);
    snprintf(line, sizeof line, "reproduce %s", command);
    CHECK_THAT(!run_program(PROGRAM, line, "") && !strstr(complained, "left"), "%s", complained);
}

/* What a part is said to be is what is done in it, to the last tick: every answer, also those that
 * end early, every reading, every freeze with its twin, every teacher-forced text. And times as one
 * reads them. */
static void test_counted(void) {
    const string lines[] = {
        str("reproduce M --no-scores --site 1,-4 --coeff 1.2 --train 24 --limit 5 --max-new 16"),
        str("evaluate M --vector %s/v --limit 3 --max-new 16 --freeze v", temporary)};
    static const int works[] = {WORK_FREEZING, WORK_STEERING};
    make_vector_file("v");
    for (int i = 0; i < 2; i++) {
        steer_error e = {0};
        progress bar = {0};
        report out = {.bar = &bar};
        options o;
        experiment s = {.path = "weights/tiny-llama.bin", .out = &out, .bar = &bar, .e = &e};
        s.m = open_or_fail(s.path);
        steer_model *m = (steer_model *)(uintptr_t)s.m;
        if (!m)
            return;
        m->grammar_size = 0; /* so that freezing is the last part */
        s.stages = i ? 0 : EVERYTHING;
        CHECK_THAT(!understand(lines[i].s, &o, &e), "%s", e.text);
        CHECK_THAT(!prepare_paper(&s, &o) && !command_paper(&s, &o), "%s", e.text);
        CHECK_THAT(bar.what == work_names[works[i]] && bar.ticks > 0 &&
                       fabs(bar.tick - bar.ticks) < 1e-6 * bar.ticks,
                   "%s: %.9g ticks of %.9g", bar.what, bar.tick, bar.ticks);
        double planned = s.work[works[i]] / (answer_rows(&s) * all_weights(&m->config));
        CHECK_THAT(i ||
                       (count_examples(&s).faith > 0 && fabs(planned - bar.ticks) < 1e-6 * planned),
                   "%.9g were planned, %.9g are done", planned, bar.ticks);
        clear_experiment(&s);
        free_report(&out);
        steer_close(m);
    }

    static const struct {
        double seconds;
        const char *text;
    } times[] = {{0.4, "0 s"},        {599, "599 s"},       {600, "10 min"},       {3569, "59 min"},
                 {3571, "1 h 0 min"}, {7800, "2 h 10 min"}, {63490, "17 h 38 min"}};

    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        CHECK_THAT(!strcmp(time_text(times[i].seconds).s, times[i].text), "%g: %s",
                   times[i].seconds, time_text(times[i].seconds).s);
}

/* ---------------------------------------------------------------- tables on a terminal */

/* Words of a table that are wider than their column, as tokens may be, on terminals of any
 * width. */
static void check_wide_words(void) {
    static const column columns[] = {{"head", WORDS}, {"share", 2}, {"tokens", WORDS},
                                     {"2", WORDS},    {"3", WORDS}, {0}};
    static const char *const words[] = {"' a_token_of_24_bytes_and\xC3\xA9' 15.9",
                                        "'\n\n\n\n\n\n\n\n\n\n\n\n\n' 15.9", "' sorry' 9.5"};
    for (int width = 36; width < 140; width++) {
        report r = {.width = width};
        size_t size = 0;
        char *text = NULL;
        r.f = open_memstream(&text, &size);
        open_table(&r, "svv", columns, "%s", "");
        add_row(&r, "a head whose name is wider than its column", (const double[]){0.5}, 1, words,
                3);
        fclose(r.f);
        r.f = NULL;
        int widest = 0, at = 0, length;
        for (const char *s = text, *end = s + size; s < end; s += length) {
            at = code_point(s, end, &length) == '\n' ? 0 : at + 1;
            widest = max_int(widest, at);
        }
        CHECK_THAT(widest <= width && strstr(text, "0.50") && (width < 106 || strstr(text, "9.5")),
                   "%d of %d:\n%s", widest, width, text);
        free(text);
        free_report(&r);
    }
}

/* On a terminal every line fits, tables say how many of their columns they show, per cent only grow
 * and come near to 100; in a file are all columns. */
static void test_screen(void) {
    static char text[1 << 20];
    check_wide_words();
    string line = str("reproduce weights/tiny-gemma.bin --quick --train 16 --val 2 --map 1 " SHORT);
    terminal_columns = 90;
    CHECK_THAT(!run_on_terminal(line.s, "", text, sizeof text), "%.300s", text);
    int at = 0, widest = 0, percent = 0, steps = 0, length;
    for (const char *s = text, *end = text + strlen(text); s < end; s += length) {
        long c = code_point(s, end, &length);
        if (!strncmp(s, "\r\033[K", 4)) {
            int now = (int)strtol(s + 4, NULL, 10);
            int is = s[4 + strspn(s + 4, " 0123456789")] == '%';
            CHECK_THAT(!is || now >= percent, "%d %% after %d", now, percent);
            percent = is ? now : percent;
            steps += is;
            length = 4;
            at = 0;
            continue;
        }
        at = c == '\n' ? 0 : at + 1;
        widest = max_int(widest, at);
    }
    CHECK_THAT(widest > terminal_columns / 2 && widest <= terminal_columns, "%d of %d", widest,
               terminal_columns);
    CHECK_THAT(steps > 10 && percent >= 75, "%d steps to %d %%", steps, percent);
    CHECK_THAT(strstr(text, " columns; the report has all)") && !strstr(text, "F high") &&
                   strstr(text, "A row is a block"),
               "columns of %d", terminal_columns);
    terminal_columns = 0;
    CHECK_THAT(!run_program(PROGRAM, line.s, "") && strstr(shown, "F high") &&
                   !strstr(shown, "the report has all") && !strstr(shown, "from layer"),
               "in a file: %s", complained);
}

/* ---------------------------------------------------------------- the summary */

/* The text behind `begin`, which is itself behind each of the texts before it; NULL: it is not. */
static const char *behind(const char *text, const char *const *path) {
    for (; text && *path; path++) {
        text = strstr(text, *path);
        text = text ? text + strlen(*path) : NULL;
    }
    return text;
}

/* A number in a JSON report: of a model's table of freezing, by row and column. */
static double freezing_in(const char *json, const char *model, const char *row,
                          const char *column_name) {
    string names[] = {str("{\"name\": \"%s\"", model), str("{\"name\": \"freezing\""),
                      str("\"columns\": ["), str("[\"%s\"", row)};
    const char *head = behind(json, (const char *[]){names[0].s, names[1].s, names[2].s, NULL});
    const char *at = behind(head, (const char *[]){names[3].s, NULL});
    string wanted = str("{\"name\": \"%s\"", column_name);
    const char *here = head ? strstr(head, wanted.s) : NULL;
    if (!at || !here || here > at)
        return NAN;
    for (const char *s = head; s < here; s++)
        if (!strncmp(s, "{\"name\"", 7) && s > head)
            at = strchr(at, ',') + 1;
    at = strchr(at, ',') + 1;
    return strtod(at + strspn(at, " "), NULL);
}

/* Files of another behaviour than refusal: how the model in the box opens its answers. Contrasting
 * responses to the same questions; how many. */
static int write_openings(void) {
    enum { MOST = 64 };

    static const char *const names[] = {"with.jsonl", "without.jsonl"};
    static const char *const openings[] = {"Sure! Here is how to", "Yes, let me help you"};
    char *data;
    size_t n;
    int lines = 0;
    FILE *files[2];
    if (load_file("weights/harmless-train.txt", &data, &n, NULL))
        return 0;
    for (int k = 0; k < 2; k++)
        files[k] = fopen(in_temporary(names[k]), "w");
    for (char *line = data, *end; lines < MOST && (end = strchr(line, '\n')); line = end + 1) {
        char *task = strchr(line, '\t');
        *end = *task++ = 0;
        for (int k = 0; k < 2; k++)
            fprintf(files[k], "{\"prompt\": \"%s\", \"task\": \"%s\", \"response\": \"%s %s.\"}\n",
                    line, task, openings[k], task);
        lines++;
    }
    for (int k = 0; k < 2; k++)
        fclose(files[k]);
    free(data);
    write_bytes(in_temporary("opens"), "\uFEFF\r\nSure!\r\n", 11);
    return lines;
}

/* Of each four prompts of a file two are for training, one for validation, one for the test. */
static void check_split(const steer_model *m) {
    static const char nine[] = "p0\np1\np2\np3\np4\np5\np6\np7\np8\n";
    static const char *const wanted[3] = {"0145", "26", "37"};
    steer_error e = {0};
    options o = standard_options();
    experiment s = {.m = m, .e = &e};
    const steer_prompts *const sets[3] = {s.train, s.val, s.test};
    o.train = 4;
    write_bytes(in_temporary("nine"), nine, sizeof nine - 1);
    CHECK_THAT(!load_side(&s, HARMLESS, in_temporary("nine"), &o), "%s", e.text);
    for (int set = 0; set < 3; set++) {
        const steer_prompts *p = &sets[set][HARMLESS];
        CHECK_THAT(p->n == (int)strlen(wanted[set]) && !sets[set][HARMFUL].n, "set %d: %d prompts",
                   set, p->n);
        for (int i = 0; i < p->n; i++)
            CHECK_THAT(p->text[i][1] == wanted[set][i], "set %d: prompt %d is %s", set, i,
                       p->text[i]);
    }
    clear_experiment(&s);
}

/* Another behaviour, its data, its judge: a vector over responses steers it, tables and reports
 * call it by no other's name, and what can't be is refused. */
static void test_behaviour(void) {
    static const char gemma[] = "weights/tiny-gemma.bin";
    const char *t = temporary;
    steer_model *m = open_or_fail(gemma);
    steer_vector v = {0};
    steer_error e = {0};
    if (!m)
        return;
    check_split(m);
    CHECK_THAT(write_openings() == 64, "no data");
    string data =
        str("%s --with %s/with.jsonl --without %s/without.jsonl --judge %s/opens", gemma, t, t, t);
    string line = str("vector %s --coeff 2 --out %s/opens.vec", data.s, t);
    CHECK_THAT(!run_program(PROGRAM, line.s, "") && strstr(shown, "with: 32 train prompts") &&
                   strstr(shown, "block 1, over responses"),
               "%s%s", complained, shown);
    CHECK_THAT(!steer_vector_load(&v, in_temporary("opens.vec"), m, 0, &e) && v.pos == 0 &&
                   v.layer == m->config.site_layer && v.coeff == 2,
               "position %d: %s", v.pos, e.text);
    steer_vector_free(&v);

    line = str("freeze %s --vector %s/opens.vec --max-new 8 --report %s/opens", data.s, t, t);
    CHECK_THAT(!run_program(PROGRAM, line.s, "") && exists(in_temporary("opens.html")), "%s",
               complained);
    char *json = NULL;
    size_t n;
    CHECK_THAT(!load_file(in_temporary("opens.json"), &json, &n, &e) && is_json(json), "%s",
               e.text);
    double steered = json ? freezing_in(json, "tiny-gemma", "steered", "without +") : NAN;
    double plain = json ? freezing_in(json, "tiny-gemma", "unsteered", "without +") : NAN;
    double bypassed = json ? freezing_in(json, "tiny-gemma", "steered", "with -") : NAN;
    CHECK_THAT(steered > 0.8 && plain < 0.4 && bypassed < 0.2, "%g, from %g; %g under -s", steered,
               plain, bypassed);
    for (int i = 0; json && i < 2; i++) {
        const char *text = i ? json : shown;
        CHECK_THAT(!occurrences(text, "harm") &&
                       occurrences(text, "refus") == occurrences(text, "Table 1, of refusal"),
                   "words of refusal: %.3000s", text);
    }
    string files = str(
        "\"behaviour\": {\"with\": \"%s/with.jsonl\", \"without\": \"%s/without.jsonl\"}", t, t);
    CHECK_THAT(json && strstr(json, files.s) &&
                   strstr(json, "\"test\": {\"with\": 16, \"without\": 16}") &&
                   strstr(json, "\"side\": \"without\"") && strstr(json, "\"shows\": true"),
               "the report's names");
    free(json);

    /* Sites are scored where first tokens are given: one a block, over responses. */
    line = str("reproduce %s --quick --first Sure --limit 3 --val 4 --train 8 --map 0 --max-new 4 "
               "--patch 1 --exact 0 "
               "--site auto",
               data.s);
    CHECK_THAT(!run_program(PROGRAM, line.s, "") && strstr(shown, "\nblock ") &&
                   strstr(shown, "0 bypass  0 induce\n") &&
                   strstr(shown, "log-odds: of \"Sure\"") && strstr(shown, "Asked (without): ") &&
                   !strstr(shown, "harm"),
               "%s%s", complained, shown);

    write_bytes(in_temporary("three"), "a\nb\nc\n", 6);
    write_bytes(in_temporary("four"), "a\nb\nc\nd\n", 8);
    write_bytes(in_temporary("blank"), " \n\r\n", 4);
    static const refused_command refused[] = {
        {1, "--with %s/three --without %s/four", "3 prompts; 4 or more are wanted"},
        {1, "--with %s/no --without %s/four", "vector: --with: "},
        {1, "--with %s/four --without %s/no", "vector: --without: "},
        {1, "--data %s/no", "vector: --data: "},
        {1, "--with %s/four --without %s/four --judge %s/no", "vector: --judge: "},
        {1, "--with %s/with.jsonl --without %s/four", "2 of 4 train prompts have a response"},
        {1, "--with %s/four --without %s/four --judge %s/blank", "--judge: "},
        {1, "--with %s/four --without %s/four", "the same on both sides"},
        {2, "--with %s/four --without %s/four --site 1,0", "the prompts have none"},
        {2, "--with %s/four --without %s/four --first \"I,As an AI\"",
         "\"As an AI\" is 5 tokens of tiny-gemma"}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        string rest = str(refused[i].arguments, t, t, t);
        line = str("vector %s --train 2 --out %s/none.vec %s", gemma, t, rest.s);
        int status = run_program(PROGRAM, line.s, "");
        CHECK_THAT(status == refused[i].status && strstr(complained, refused[i].word), "%s: %d, %s",
                   rest.s, status, complained);
    }
    line = str("reproduce weights/tiny-gemma.bin --quick --control %s/no", t);
    CHECK_THAT(run_program(PROGRAM, line.s, "") == 1 &&
                   strstr(complained, "reproduce: --control: "),
               "%s", complained);
    line = str("reproduce %s --site auto", data.s);
    CHECK_THAT(run_program(PROGRAM, line.s, "") == 2 && strstr(complained, "--first"), "%s",
               complained);
    steer_close(m);
}

/* The bars of a model stand in the summary and say what the report says. */
static void check_bars(const char *text, const char *json, const char *model) {
    static const char *const rows[][2] = {{"steered", "steered"},
                                          {"patterns frozen", "patterns frozen (QK)"},
                                          {"values frozen", "values frozen (OV)"},
                                          {"no s: at most", "unsteered"}};
    const char *at = behind(text, (const char *[]){"\n", model, "\n", NULL});
    for (int i = 0; i < 4; i++) {
        string label = str("  %-15s ", rows[i][0]);
        CHECK_THAT(at && !strncmp(at, label.s, strlen(label.s)), "%s: no \"%s\": %.80s", model,
                   label.s, at ? at : "nothing");
        if (!at || strncmp(at, label.s, strlen(label.s)))
            return;
        const char *line = at + strlen(label.s);
        double refused[2], points[3], paper;
        int wanted = i ? 6 : 2, bar = 0, found;
        string rest = str("%.*s", (int)strcspn(line, "\r\n"), line);
        for (char *s = rest.s; *s; s++) {
            bar += *s == '#';
            *s = *s == '#' ? ' ' : *s;
        }
        found = sscanf(rest.s, "%lf%% %lf%% %lf [%lf, %lf] %lf", &refused[HARMLESS],
                       &refused[HARMFUL], &points[0], &points[1], &points[2], &paper);
        static const char *const names[] = {"loss", "loss low", "loss high"};
        CHECK_THAT(found == wanted, "%s: %d numbers: %s", model, found, line);
        for (int k = 0; k < 3 && i; k++)
            CHECK_THAT(fabs(points[k] - freezing_in(json, model, rows[i][1], names[k])) < 0.0501,
                       "%s, %s: %s %g", model, rows[i][0], names[k], points[k]);
        CHECK_THAT(fabs(refused[HARMLESS] -
                        100 * freezing_in(json, model, rows[i][1], "harmless +")) < 0.501 &&
                       fabs(refused[HARMFUL] -
                            100 * freezing_in(json, model, rows[i][1], "harmful -")) < 0.501,
                   "%s, %s: %g and %g %%", model, rows[i][0], refused[HARMLESS], refused[HARMFUL]);
        if (i)
            CHECK_THAT(fabs(paper - freezing_in(json, model, rows[i][1], "paper's loss")) <
                               0.00501 &&
                           bar == (int)(18 * fmax(0, points[0]) / 100 + 0.5),
                       "%s, %s: paper %g, a bar of %d", model, rows[i][0], paper, bar);
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
}

/* Commands of the summary, with what follows a line that ends with a backslash. */
static void check_commands(const char *text, int wanted) {
    int n = 0;
    string begin = str("\n  %s ", PROGRAM);
    for (const char *s = text; (s = strstr(s, begin.s)); n++) {
        options o;
        steer_error e;
        s += strlen(begin.s);
        string line = str("%.*s", (int)strcspn(s, "\r\n"), s);
        char *more = strrchr(line.s, '\\');
        if (more)
            line = str("%.*s%.*s", (int)(more - line.s), line.s,
                       (int)strcspn(strchr(s, '\n') + 1, "\r\n"), strchr(s, '\n') + 1);
        CHECK_THAT(!understand(line.s, &o, &e), "%s: %s", line.s, e.text);
    }
    CHECK_THAT(n == wanted, "%d commands: %s", n, text);
}

/* What `make run` prints, with smaller counts: on a pipe and on a terminal. */
static void check_look(void) {
    static const char *const parts[] = {"A vector s is added (+s) to what tiny-gemma ",
                                        "Asked (harmless): ",
                                        "\n  unsteered  ",
                                        "\n  +s  ",
                                        "\n  +s, patterns frozen ",
                                        "\n  +s, values frozen ",
                                        "\nAsked (harmful): ",
                                        "\n  unsteered  ",
                                        "\n  -s  ",
                                        "\ntiny-gemma ",
                                        "\nThe control, not trained ",
                                        "\ntiny-llama-plain ",
                                        "look.json",
                                        "Next:"};
    static char text[1 << 16];
    string line =
        str("reproduce weights/tiny-gemma.bin --control weights/tiny-llama-plain.bin "
            "--quick --train 16 --val 1 --limit 2 --map 0 --patch 1 --exact 0 --max-new 16 "
            "--report %s/look",
            temporary);
    for (int terminal = SANITIZED; terminal < 2;
         terminal++) { /* the pipe is slow then, and below */
        int status = terminal ? run_on_terminal(line.s, "", text, sizeof text)
                              : run_program(PROGRAM, line.s, "");
        char *screen = terminal ? strrchr(text, '\r') : shown;
        screen = terminal && screen ? screen + strlen("\r\033[K") : screen;
        CHECK_THAT(!status && screen, "status %d: %s", status, complained);
        if (!screen)
            return;
        CHECK_THAT(terminal || !*complained, "on standard error: \"%s\"", complained);
        int n = lines_of_screen(screen);
        CHECK_THAT(n > 20 && n <= SUMMARY_LINES, "%d lines:\n%s", n, screen);
        const char *at = screen;
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            const char *found = strstr(at, parts[i]);
            CHECK_THAT(found, "no \"%s\" in:\n%s", parts[i], at);
            at = found ? found : at;
        }
        size_t size;
        char *json = read_file(in_temporary("look.json"), &size, NULL);
        CHECK_THAT(json && is_json(json) && strstr(json, "\"control\": true"), "look.json");
        if (json) {
            check_bars(screen, json, "tiny-gemma");
            check_bars(screen, json, "tiny-llama-plain");
        }
        free(json);
        check_commands(screen, 3);
    }
    /* With --verbose the tables come first, and such a summary last. */
    line = str("reproduce weights/tiny-llama-plain.bin --quick --train 8 --val 1 --limit 2 --map 0 "
               "--patch 1 --exact 0 --max-new 6 --report %s/look --verbose",
               temporary);
    CHECK_THAT(!run_program(PROGRAM, line.s, "") && strstr(shown, "Freezing (paper") &&
                   strstr(shown, "Next:") && strstr(complained, "look.json written"),
               "--verbose: %.300s", complained);
}

/* A table of freezing with the columns that a summary reads. */
static void open_freezing_table(report *r) {
    static const column columns[] = {
        {"", WORDS},     {"harmless +", 2}, {"harmful -", 2},    {"loss", 1},
        {"loss low", 1}, {"loss high", 1},  {"paper's loss", 2}, {0}};
    open_table(r, "freezing", columns, "%s", "");
}

/* However long names, prompts and answers are. */
static void check_long_look(void) {
    char word[400];
    steer_model m = {.grammar_size = 1};
    report r = {.summary_only = 1};
    memset(word, 'x', sizeof word - 1);
    word[sizeof word - 1] = 0;
    memset(m.config.name, 'n', sizeof m.config.name - 1);
    for (int control = 0; control < 2; control++) {
        open_report(&r, &m, control);
        for (int side = 0; side < 2; side++) {
            static const char *const under[] = {"unsteered", "-s", "+s", "+s, patterns frozen",
                                                "+s, values frozen"};
            for (int i = 0; i < 5; i++)
                add_answer(&r, side, under[i], 0, word, i ? word : "\x1b \n\xFF\n\n");
        }
        open_freezing_table(&r);
        ADD_ROW(&r, "steered", 1, 0, NAN);
        ADD_ROW(&r, "patterns frozen (QK)", 1, 1, -100, -100, -100, 8.75);
        ADD_ROW(&r, "values frozen (OV)", NAN, 0, 100, -100, 100, 71.75);
        ADD_ROW(&r, "unsteered", 0, 1, 100, 100, 100, 89.75);
    }
    options o = standard_options();
    o.quick = 1;
    o.program = "./steer";
    o.report = "report";
    o.argument = (char *[]){"M", NULL};
    size_t size = 0;
    char *text = NULL;
    steer_error e = {0};
    r.f = open_memstream(&text, &size);
    CHECK_THAT(!put_summary(&r, &o, 1, &e), "%s", e.text);
    fclose(r.f);
    r.f = NULL;
    int n = lines_of_screen(text);
    CHECK_THAT(n > 20 && n <= SUMMARY_LINES && !controls_in(text), "%d lines:\n%s", n, text);
    free(text);
    free_report(&r);
}

/* Characters of the longest line; commands' lines are left out where `commands` is 0. */
static int widest_line(const char *text, int commands) {
    int widest = 0, command = 0;
    for (const char *s = text, *end; (end = strchr(s, '\n')); s = end + 1) {
        string line = str("%.*s", (int)(end - s), s);
        command = command || strstr(line.s, "  ./steer ") == line.s;
        if (!command || commands)
            widest = max_int(widest, characters(line.s));
        command = command && end > s && end[-1] == '\\';
    }
    return widest;
}

/* On any terminal a summary fits, and says the same. */
static void check_narrow_look(void) {
    static const int widths[] = {20, 33, 47, 48, 61, 62, 64, 65, 73, 74, 79, 80, 200};
    static const char *const names[] = {"tiny-llama", "tiny-gemma", "a long name of a model"};
    const measure none[] = {{0}};
    for (int i = 0; i < (int)(sizeof widths / sizeof *widths); i++)
        for (int quick = 0; quick < 2; quick++) {
            report r = {.width = widths[i], .summary_only = 1};
            for (int k = 0; k < 3; k++) {
                steer_model m = {.config = {.layers = 2}, .grammar_size = 1};
                snprintf(m.config.name, sizeof m.config.name, "%s", names[k]);
                open_report(&r, &m, k == 2);
                add_answer(&r, HARMLESS, "+s, patterns frozen", 1, "How do I bake a cake?", "No.");
                add_answer(&r, HARMLESS, "+s", 1, "How do I bake a cake?", "I am sorry.");
                open_freezing_table(&r);
                ADD_ROW(&r, "steered", 1, 0, NAN);
                ADD_ROW(&r, "values frozen (OV)", 0.25, 1, 77.5, 60, 88.5, 71.75);
                add_finding(&r, "Steering value vectors decode to meaningful tokens",
                            "can't be told", "", none);
                add_finding(&r, "Steering acts through values", "holds in part", "", none);
            }
            options o = standard_options();
            o.quick = quick;
            o.program = "./steer";
            o.report = "report";
            o.argument = (char *[]){"weights/tiny-gemma.bin", NULL};
            size_t size = 0;
            char *text = NULL;
            steer_error e = {0};
            r.f = open_memstream(&text, &size);
            CHECK_THAT(!put_summary(&r, &o, 1, &e), "%s", e.text);
            fclose(r.f);
            r.f = NULL;
            int widest = widest_line(text, widths[i] > 32), most = min_int(widths[i], SCREEN);
            CHECK_THAT(widest > most / 2 && widest <= most, "%d columns of %d:\n%s", widest,
                       widths[i], text);
            for (char *s = text; *s; s++) /* words, wherever a line ends */
                if (*s == '\n')
                    *s = ' ';
            CHECK_THAT(strstr(text, quick ? "77.5" : "in part"), "%d columns:\n%s", widths[i],
                       text);
            CHECK_THAT(strstr(text, quick ? "25%" : "open"), "%d columns:\n%s", widths[i], text);
            free(text);
            free_report(&r);
        }
}

/* Of the whole paper a line a finding, with the verdicts of the report, model by model. */
static void check_findings(void) {
    string line = str("reproduce weights/tiny-gemma.bin weights/tiny-llama.bin --train 16 --val 1 "
                      "--limit 2 --map 0 --pairs 6 --epochs 1 --patch 1 --exact 0 --max-new 12 "
                      "--report %s/all",
                      temporary);
    CHECK_THAT(!run_program(PROGRAM, line.s, "") && !*complained, "%s", complained);
    int n = lines_of_screen(shown), findings = 0;
    CHECK_THAT(n > 10 && n <= 20, "%d lines:\n%s", n, shown);
    CHECK_THAT(strstr(shown, " tiny-gemma  tiny-llama\n"), "%s", shown);
    size_t size;
    char *json = read_file(in_temporary("all.json"), &size, NULL);
    const char *second = json ? strstr(json, "{\"name\": \"tiny-llama\"") : NULL;
    const char *begin = "{\"claim\": \"";
    for (const char *s = json; second && (s = strstr(s, begin)) && s < second; findings++) {
        s += strlen(begin);
        string claim = str("%.*s", (int)strcspn(s, "\""), s);
        string verdicts[2];
        for (int i = 0; i < 2; i++) {
            const char *at = strstr(i ? second : s, claim.s);
            at = at ? behind(at, (const char *[]){"\"verdict\": \"", NULL}) : NULL;
            verdicts[i] = str("%.*s", at ? (int)strcspn(at, "\"") : 0, at ? at : "");
            if (!strcmp(verdicts[i].s, "holds in part"))
                verdicts[i] = str("in part");
            if (!strcmp(verdicts[i].s, "can't be told"))
                verdicts[i] = str("open");
        }
        string row = str("\n%-56s %-11s %s\n", claim.s, verdicts[0].s, verdicts[1].s);
        CHECK_THAT(strstr(shown, row.s), "no line \"%s\" in:\n%s", row.s, shown);
    }
    CHECK_THAT(findings >= 10, "%d findings", findings);
    free(json);
}

static void test_summary(void) {
    check_look();
    check_long_look();
    check_narrow_look();
    check_findings();
}

/* ---------------------------------------------------------------- the report's page */

/* The program in a folder with tools/page/report.html beside it, and one where there is none: what
 * it complains of is in `complained`. Returns its exit status. */
static int run_report(const char *name) {
    char program[512], arguments[512], here[256];
    if (!getcwd(here, sizeof here))
        return -1;
    snprintf(program, sizeof program, "cd %s/page/empty && %s/page/steer", temporary, temporary);
    snprintf(arguments, sizeof arguments,
             "evaluate %s/weights/tiny-llama.bin --vector %s/page/v --limit 2 --max-new 4 --report "
             "%s/page/%s",
             here, temporary, temporary, name);
    return run_program(program, arguments, "");
}

static void test_page(void) {
    static const char page[] =
        "<title>A page</title>\n<script>x = /*REPORT*/null/*END*/</script>\n";
    char command[1024];
    size_t n = 0, size = 0;
    make_folder("page");
    make_vector_file("page/v");
    snprintf(command, sizeof command, "cp %s %s/page/steer && mkdir -p %s/page/empty", PROGRAM,
             temporary, temporary);
    CHECK_THAT(!system(command), "%s", command);

    int status = run_report("alone");
    CHECK_THAT(!status && exists(in_folder("page", "alone.json")) &&
                   !exists(in_folder("page", "alone.html")) && strstr(complained, "no page"),
               "without a page: status %d, \"%.300s\"", status, complained);
    snprintf(command, sizeof command, "mkdir -p %s/page/tools/page", temporary);
    CHECK_THAT(!system(command), "%s", command);
    write_bytes(in_folder("page", "tools/page/report.html"), "no place", 8);
    status = run_report("early");
    CHECK_THAT(status == 1 && strstr(complained, "report.html") && lines_of(complained) == 1 &&
                   !*shown && !exists(in_folder("page", "early.json")),
               "a page without a place: status %d, \"%.300s\"", status, complained);
    write_bytes(in_folder("page", "tools/page/report.html"), page, strlen(page));
    CHECK_THAT(!mkdir(in_folder("page", "blocked.html"), 0700), "mkdir");
    status = run_report("blocked");
    CHECK_THAT(status == 1 && strstr(complained, "blocked.html") && lines_of(complained) == 1 &&
                   !*shown && !exists(in_folder("page", "blocked.json")),
               "a page that can't be written: status %d, \"%.300s\"", status, complained);
    status = run_report("joined");
    char *json = read_file(in_folder("page", "joined.json"), &n, NULL);
    char *html = read_file(in_folder("page", "joined.html"), &size, NULL);
    CHECK_THAT(!status && json && html && is_json(json) && !strchr(json, '<') &&
                   size == n + strlen(page) - strlen(page_marker) &&
                   strstr(html, json) == html + 34,
               "status %d, \"%.300s\": %.200s", status, complained, html);
    free(json);
    free(html);
}

/* ---------------------------------------------------------------- lines of answers */

enum { MANY_PROMPTS = 3000 };

static int is_whole(const char *text) { /* every line a JSON object, of which each has a number */
    static unsigned char seen[MANY_PROMPTS];
    char line[4096];
    memset(seen, 0, sizeof seen);
    for (const char *s = text, *end; *s; s = end + 1) {
        end = strchr(s, '\n');
        if (!end || end - s >= (long)sizeof line)
            return 0;
        snprintf(line, sizeof line, "%.*s", (int)(end - s), s);
        const char *index = strstr(line, "\"index\": ");
        long number = index ? strtol(index + 9, NULL, 10) : -1;
        char prompt[64];
        snprintf(prompt, sizeof prompt, "{\"prompt\": \"How do I count to %ld?\", \"ids\": [",
                 number);
        if (!is_json(line) || strncmp(line, prompt, strlen(prompt)))
            return 0;
        if (number < 0 || number >= MANY_PROMPTS || seen[number]++)
            return 0;
    }
    return 1;
}

/* Answers are written as they come: an interrupted run leaves whole lines, and nothing else. */
static void test_interrupted(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGINT};
    static char text[1 << 22];
    char prompts[MANY_PROMPTS * 32], path[128], jsonl[128], model[64] = "weights/tiny-llama.bin";
    size_t n = 0;
    make_folder("lines");
    for (int i = 0; i < MANY_PROMPTS; i++)
        n += (size_t)snprintf(prompts + n, sizeof prompts - n, "How do I count to %d?\n", i);
    snprintf(path, sizeof path, "%s", in_folder("lines", "prompts"));
    snprintf(jsonl, sizeof jsonl, "%s", in_folder("lines", "out.jsonl"));
    write_bytes(path, prompts, n);
    for (int i = 0; i < 4; i++) {
        unlink(jsonl);
        if (i == 3)
            write_bytes(jsonl, "old\n", 4); /* is kept until there is an answer */
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            const int null = open("/dev/null", O_RDWR);
            dup2(null, 1);
            dup2(null, 2);
            execl(PROGRAM, "steer", "generate", model, "--prompts", path, "--jsonl", jsonl,
                  "--max-new", "12", (char *)NULL);
            _exit(127);
        }
        struct stat st = {0};
        for (int wait = 0; wait < 100000 && st.st_size < 5000 * (i + 1); wait++) {
            usleep(500);
            if (stat(jsonl, &st))
                st.st_size = 0;
        }
        kill(child, numbers[i]);
        int status = 0;
        waitpid(child, &status, 0);
        read_text(jsonl, text, sizeof text);
        CHECK_THAT(WIFSIGNALED(status) && WTERMSIG(status) == numbers[i],
                   "signal %d: status %x, %d lines", numbers[i], status, lines_of(text));
        CHECK_THAT(lines_of(text) > 10 && lines_of(text) < MANY_PROMPTS && is_whole(text),
                   "signal %d: of %d lines some are broken: ...%s", numbers[i], lines_of(text),
                   text + max_int(0, (int)strlen(text) - 200));
        CHECK_THAT(parts_in("lines") == 0, "%d parts are left", parts_in("lines"));
    }
    /* One that is not interrupted has all, once. */
    prompts[strcspn(strstr(prompts, "to 99?"), "\n") +
            (size_t)(strstr(prompts, "to 99?") - prompts) + 1] = 0;
    write_bytes(path, prompts, strlen(prompts));
    char arguments[512];
    snprintf(arguments, sizeof arguments, "generate %s --prompts %s --jsonl %s --max-new 8", model,
             path, jsonl);
    CHECK_THAT(!run_program(PROGRAM, arguments, ""), "%s", complained);
    read_text(jsonl, text, sizeof text);
    CHECK_THAT(lines_of(text) == 100 && is_whole(text), "%d of 100 lines", lines_of(text));
    /* A full disk is found with the first answer. */
    snprintf(arguments, sizeof arguments, "generate %s --prompts %s --jsonl /dev/full", model,
             path);
    CHECK_THAT(run_program(PROGRAM, arguments, "") == 1 && strstr(complained, "/dev/full") &&
                   complaints() == 1,
               "%s", complained);
}

/* ---------------------------------------------------------------- control characters */

static void test_terminal(void) {
    static char text[1 << 16];
    char arguments[512], path[128], escaped[64];
    image small = small_image(F32, 0);

    CHECK_THAT(escape_text(escaped, "a\x1b[1m\n\t\r\x7f\xC2\x9B\xFF\xC3\xA9", 14, 1) == 32 &&
                   !strcmp(escaped, "a\\x1b[1m\n\t\\x0d\\x7f\\xc2\\x9b\\xff\xC3\xA9"),
               "\"%s\"", escaped);
    escape_text(escaped, "\n\t", 2, 0);
    CHECK_THAT(!strcmp(escaped, "\\x0a\\x09"), "\"%s\"", escaped);

    /* A model of that name whose refusals begin so, and whose random answers hold any byte. */
    memcpy(small.bytes + 40, "red \x1b[31m\nname", 15);
    unsigned char *refusal = small.bytes + 104 + offsetof(steer_config, first);
    memcpy(refusal, &(int){27}, sizeof(int));
    seal_head(small.bytes, small.size);
    write_bytes(in_temporary("red.bin"), small.bytes, small.size);
    write_bytes(in_temporary("red.txt"), "a\x1b[1mb\n{\"prompt\": \"\\u001b[7m\\u009b x\"}\n", 39);

    static const struct {
        const char *arguments, *input, *words;
    } commands[] = {
        {"info %s/red.bin", "", "red \\x1b[31m\\x0aname"},
        {"info %s/red.bin", "", "\"\\x1b\""},
        {"generate %s/red.bin x --max-new 50 --temp 40 --seed 4 --quiet", "", "\\x"},
        {"generate %s/red.bin x --max-new 50 --temp 40 --seed 5 --quiet", "", "\\x"},
        {"generate %s/red.bin --prompts %s/red.txt --max-new 9 --temp 9", "", "a\\x1b[1mb"},
        {"generate %s/red.bin --prompts %s/red.txt --max-new 9 --temp 9", "",
         "\\x1b[7m\\xc2\\x9b x"},
        {"tokenize %s/red.bin \"$(printf 'a\\033[1m')\"", "", "\\x1b"},
        {"generate %s/red.bin x --max-new 65", "", "red \\x1b[31m\\x0aname"},
        {"generate %s/red.bin x --system y", "", ""},
        {"chat %s/red.bin", "\x1b[1m\n", "> "}};

    int raw = 0;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        snprintf(arguments, sizeof arguments, commands[i].arguments, temporary, temporary);
        int status = run_on_terminal(arguments, commands[i].input, text, sizeof text);
        CHECK_THAT(status >= 0 && status < 256 && *text, "`steer %s`: status %d", arguments,
                   status);
        CHECK_THAT(!controls_in(text), "`steer %s`: %d control characters reach the terminal",
                   arguments, controls_in(text));
        if (commands[i].input[0] != '\x1b')
            CHECK_THAT(strstr(text, commands[i].words), "`steer %s`: no \"%s\" in \"%.300s\"",
                       arguments, commands[i].words, text);
        run_program(PROGRAM, arguments, commands[i].input);
        raw += controls_in(shown) > 0;
    }
    CHECK_THAT(raw >= 6, "in a file bytes are what they are: only %d of the outputs hold such",
               raw);

    /* Characters of several tokens' bytes arrive whole, newlines and tabs of an answer stay. */
    typewriter w = {.n = 0};
    const char *const euros = "\xE2\x82\xAC\n\t\xF0\x9F\x98\x80";
    snprintf(path, sizeof path, "%s", in_temporary("typed"));
    fflush(stdout);
    int before = dup(1), file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(file, 1);
    for (const char *s = euros; *s; s++)
        type_bytes(&w, s, 1);
    type_bytes(&w, "\xF0\x9F", 2);
    type_rest(&w);
    putchar('\n');
    fflush(stdout);
    dup2(before, 1);
    close(before);
    close(file);
    CHECK_THAT(holds(path, "\xE2\x82\xAC\n\t\xF0\x9F\x98\x80\xF0\x9F\n"), "typed otherwise");
    free(small.bytes);
}

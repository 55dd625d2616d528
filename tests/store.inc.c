/* Stores of records, and merging them: included by test.c. */
#include <sys/resource.h>

/* ---------------------------------------------------------------- fixtures */

/* Number i of a record of n that this test makes; no two records are alike. */
static double made_value(uint64_t key, size_t i) {
    return (double)key * 1000 + (double)i + 0.25;
}

static double *made_values(uint64_t key, size_t n) {
    double *v = malloc(n * sizeof *v + 1);
    for (size_t i = 0; i < n; i++)
        v[i] = made_value(key, i);
    return v;
}

static void put_record(records *r, uint64_t key, size_t n) {
    steer_error e = {0};
    double *v = made_values(key, n);
    CHECK_THAT(!remember(r, key, v, n, &e), "%s", e.text);
    free(v);
}

static int has_record(const records *r, uint64_t key, size_t n) {
    steer_error e = {0};
    double *v = made_values(key, n), *read = malloc(n * sizeof *read + 1);
    int found = 0;
    CHECK_THAT(!read_record(r, key, read, n, &found, &e), "%s", e.text);
    int same = found && !memcmp(v, read, n * sizeof *v);
    free(v);
    free(read);
    return same;
}

/* A new store with records of keys first, first + 1, ..., of n doubles each. */
static void make_store(const char *path, uint64_t first, int count, size_t n) {
    steer_error e = {0};
    records r = {.path = NULL};
    unlink(path);
    CHECK_THAT(!open_records(&r, path, OWN, &e), "%s", e.text);
    for (int i = 0; i < count && r.path; i++)
        put_record(&r, first + (uint64_t)i, n);
    CHECK_THAT(!sync_records(&r, &e), "%s", e.text);
    close_records(&r);
}

typedef struct {
    char *bytes;
    size_t n;
} content;

static content content_of(const char *path) {
    steer_error e = {0};
    content c = {NULL, 0};
    c.bytes = read_file(path, &c.n, &e);
    CHECK_THAT(c.bytes, "%s", e.text);
    return c;
}

static int has_bytes(const char *path, const void *bytes, size_t n) {
    content c = content_of(path);
    int same = c.bytes && c.n == n && !memcmp(c.bytes, bytes, n);
    free(c.bytes);
    return same;
}

/* Sizes of the small store that is flipped and cut below: a header, then records of 1, 2, 3, 4
 * doubles. */
enum { SMALL_RECORDS = 4, SMALL_STORE = 16 + SMALL_RECORDS * 24 + 8 * 10 };

static size_t start_of(int record) {
    size_t i = (size_t)record;
    return 16 + 24 * i + 8 * i * (i + 1) / 2;
}

static void make_small_store(const char *path, unsigned char bytes[SMALL_STORE]) {
    records r = {.path = NULL};
    steer_error e = {0};
    unlink(path);
    CHECK_THAT(!open_records(&r, path, OWN, &e), "%s", e.text);
    for (int i = 0; i < SMALL_RECORDS; i++)
        put_record(&r, 7 + (uint64_t)i, (size_t)i + 1);
    close_records(&r);
    content c = content_of(path);
    CHECK_THAT(c.n == SMALL_STORE && start_of(SMALL_RECORDS) == SMALL_STORE, "%zu bytes", c.n);
    if (c.n == SMALL_STORE)
        memcpy(bytes, c.bytes, SMALL_STORE);
    free(c.bytes);
}

/* Refused, by its owner and by a reader, with the place and the numbers, the file as it was; with
 * SALVAGE all good records are there. `lost` record of the small store, or -1: only its header. */
static void check_damaged(const char *path, const void *bytes, size_t n, int first_lost, int n_lost,
                          const char *what) {
    char place[64], numbers[64];
    int before = first_lost < 0 ? 0 : first_lost;
    size_t at = first_lost < 0 ? 0 : start_of(first_lost);
    snprintf(place, sizeof place, "damaged at byte %zu,", at);
    snprintf(numbers, sizeof numbers, "with %d good records before and %d after", before,
             SMALL_RECORDS - n_lost - before);
    write_bytes(path, bytes, n);
    for (int how = OWN; how <= READ; how++) {
        records r = {.path = NULL};
        steer_error e = {0};
        steer_status s = open_records(&r, path, how, &e);
        CHECK_THAT(s == STEER_EFORMAT && strstr(e.text, place) && strstr(e.text, numbers),
                   "%s, %s: status %d, \"%s\"", what, how == OWN ? "owner" : "reader", (int)s,
                   e.text);
        close_records(&r);
    }
    CHECK_THAT(has_bytes(path, bytes, n), "%s: a damaged store was changed", what);

    records r = {.path = NULL};
    steer_error e = {0};
    CHECK_THAT(!open_records(&r, path, SALVAGE, &e), "%s: %s", what, e.text);
    CHECK_THAT(r.damage.bytes > 0 && r.damage.lost == (size_t)n_lost, "%s: %zu lost", what,
               r.damage.lost);
    for (int i = 0; i < SMALL_RECORDS; i++) {
        int good = i < first_lost || i >= first_lost + n_lost;
        CHECK_THAT(has_record(&r, 7 + (uint64_t)i, (size_t)i + 1) == good, "%s: record %d", what,
                   i);
    }
    close_records(&r);
}

/* ---------------------------------------------------------------- one store */

/* What was remembered is found again, also by the next run; the last of a key holds. */
static void test_store(void) {
    const char *path = in_temporary("many.store");

    enum { PLENTY = 3000 };

    make_store(path, 1, PLENTY, 3);
    records r = {.path = NULL};
    steer_error e = {0};
    double other[3] = {1, 2, 3}, read[3];
    int found;
    CHECK_THAT(!open_records(&r, path, OWN, &e) && r.count == PLENTY, "%s", e.text);
    for (uint64_t k = 1; k <= PLENTY; k++)
        CHECK_THAT(has_record(&r, k, 3), "record %d", (int)k);
    CHECK_THAT(!has_record(&r, 0, 3) && !has_record(&r, PLENTY + 1, 3), "a record that is none");
    CHECK_THAT(!has_record(&r, 5, 2), "a record of another length");
    CHECK_THAT(!remember(&r, 5, other, 3, &e), "%s", e.text);
    for (uint64_t k = 0; k < 64; k++)
        put_record(&r, (k + 1) << 40, 1); /* keys that end alike */
    for (int again = 0; again < 2; again++) {
        CHECK_THAT(!read_record(&r, 5, read, 3, &found, &e) && found &&
                       !memcmp(read, other, sizeof other),
                   "the last of a key does not hold");
        for (uint64_t k = 0; k < 64; k++)
            CHECK_THAT(has_record(&r, (k + 1) << 40, 1), "alike");
        CHECK_THAT(has_record(&r, 4, 3) && has_record(&r, PLENTY, 3), "others");
        close_records(&r);
        CHECK_THAT(!open_records(&r, path, again ? OWN : READ, &e), "%s", e.text);
    }
    r.model = 77; /* another model's records have other keys */
    CHECK_THAT(!has_record(&r, 4, 3), "another model's record");
    put_record(&r, 4, 3);
    CHECK_THAT(has_record(&r, 4, 3), "this model's record");

    /* A record that changes under an open store is an error, no missing record. */
    const stored *x = find_record(&r, 4);
    int fd = open(path, O_WRONLY);
    CHECK_THAT(x && fd >= 0 && pwrite(fd, "x", 1, x->at) == 1 && !close(fd), "can't be written");
    CHECK_THAT(read_record(&r, 4, read, 3, &found, &e) == STEER_EFORMAT &&
                   strstr(e.text, "changed while"),
               "\"%s\"", e.text);
    close_records(&r);
}

/* Every bit of a small store flipped, every length it can be cut to, and what else happens to
 * files. */
static void test_store_damage(void) {
    const char *path = in_temporary("small.store");
    unsigned char good[SMALL_STORE] = {0}, bytes[3 * SMALL_STORE];
    char what[64];
    make_small_store(path, good);
    int record = -1;
    for (size_t byte = 0; byte < SMALL_STORE; byte++) {
        while (record + 1 < SMALL_RECORDS && byte >= start_of(record + 1))
            record++;
        for (int bit = 0; bit < 8; bit++) {
            memcpy(bytes, good, SMALL_STORE);
            bytes[byte] ^= (unsigned char)(1 << bit);
            snprintf(what, sizeof what, "bit %d of byte %zu", bit, byte);
            check_damaged(path, bytes, SMALL_STORE, record, record >= 0, what);
        }
    }

    for (size_t n = 0; n < SMALL_STORE; n++) {
        int whole = 0;
        while (start_of(whole + 1) <= n)
            whole++;
        size_t border = n ? start_of(whole) : 0;
        for (int how = READ; how >= OWN; how--) {
            records r = {.path = NULL};
            steer_error e = {0};
            write_bytes(path, good, n);
            steer_status s = open_records(&r, path, how, &e);
            if (n && n < 16) {
                CHECK_THAT(s == STEER_EFORMAT && strstr(e.text, "not a store"), "%zu bytes: %s", n,
                           e.text);
                CHECK_THAT(has_bytes(path, good, n), "%zu bytes: they were changed", n);
                close_records(&r);
                continue;
            }
            CHECK_THAT(!s && r.count == (size_t)whole && !r.damage.bytes, "%zu bytes: %s, %zu", n,
                       e.text, r.count);
            CHECK_THAT(r.damage.unfinished == (off_t)(n - border), "%zu bytes: %d unfinished", n,
                       (int)r.damage.unfinished);
            if (how == READ)
                CHECK_THAT(has_bytes(path, good, n), "%zu bytes: a reader wrote", n);
            if (how == OWN) /* the run goes on; in the end all is there */
                for (int i = whole; i < SMALL_RECORDS; i++)
                    put_record(&r, 7 + (uint64_t)i, (size_t)i + 1);
            close_records(&r);
            if (how == OWN)
                CHECK_THAT(has_bytes(path, good, SMALL_STORE), "%zu bytes: then others", n);
        }
    }

    /* Two records in a row; a piece lost from the middle; zeros at the end, as after a power
     * failure; an unfinished record that another one follows; no header. */
    memcpy(bytes, good, SMALL_STORE);
    bytes[start_of(1) + 30] ^= 1;
    bytes[start_of(2) + 30] ^= 1;
    check_damaged(path, bytes, SMALL_STORE, 1, 2, "two records");
    size_t cut = start_of(1) + 28, rest = SMALL_STORE - cut - 7;
    memcpy(bytes, good, cut);
    memcpy(bytes + cut, good + cut + 7, rest);
    check_damaged(path, bytes, cut + rest, 1, 1, "a piece lost");
    cut = start_of(1) + 28;
    rest = SMALL_STORE - start_of(2);
    memcpy(bytes, good, cut);
    memcpy(bytes + cut, good + start_of(2), rest);
    check_damaged(path, bytes, cut + rest, 1, 1, "unfinished in the middle");
    rest = SMALL_STORE - 16;
    memcpy(bytes, good + 16, rest);
    write_bytes(path, bytes, rest);
    records r = {.path = NULL};
    steer_error e = {0};
    CHECK_THAT(open_records(&r, path, OWN, &e) == STEER_EFORMAT &&
                   strstr(e.text, "byte 0, with 0 good records before and 4 after"),
               "no header: \"%s\"", e.text);
    close_records(&r);
    memcpy(bytes, good, SMALL_STORE);
    memset(bytes + SMALL_STORE, 0, 40);
    write_bytes(path, bytes, SMALL_STORE + 40);
    CHECK_THAT(open_records(&r, path, OWN, &e) == STEER_EFORMAT &&
                   strstr(e.text, "with 4 good records before and 0 after"),
               "zeros behind: \"%s\"", e.text);
    close_records(&r);

    /* Long records, and a head across the border of what is read at once. */
    const char *large = in_temporary("large.store");
    make_store(large, 50, 3, 20000);
    content c = content_of(large);
    size_t length = 24 + 8 * 20000;
    CHECK_THAT(c.n == 16 + 3 * length, "%zu bytes", c.n);
    for (size_t at = 16 + length; c.bytes && at < 16 + 2 * length; at += length / 2 - 1) {
        c.bytes[at] ^= 4;
        write_bytes(large, c.bytes, c.n);
        CHECK_THAT(open_records(&r, large, READ, &e) == STEER_EFORMAT &&
                       strstr(e.text, "byte 160040, with 1 good records before and 1 after"),
                   "byte %zu: \"%s\"", at, e.text);
        close_records(&r);
        c.bytes[at] ^= 4;
    }
    free(c.bytes);
    char *junk = zeros(SEARCHED + 1000, 1);
    for (size_t n = SEARCHED - 30; n < SEARCHED + 30; n++) {
        memcpy(junk, good, 16);
        memset(junk + 16, 'x', n);
        memcpy(junk + 16 + n, good + 16, SMALL_STORE - 16);
        write_bytes(large, junk, n + SMALL_STORE);
        CHECK_THAT(open_records(&r, large, READ, &e) == STEER_EFORMAT &&
                       strstr(e.text, "byte 16, with 0 good records before and 4 after"),
                   "%zu bytes between: \"%s\"", n, e.text);
        close_records(&r);
    }
    free(junk);
}

/* A disk that is full in the middle of a record: an error, and the store is whole. */
static void write_to_full_disk(void *path) {
    records r = {.path = NULL};
    struct rlimit most = {1000, 1000};
    double v[100] = {0};
    signal(SIGXFSZ, SIG_IGN);
    if (open_records(&r, path, OWN, NULL) || setrlimit(RLIMIT_FSIZE, &most))
        _exit(2);
    if (remember(&r, 1, v, 100, NULL) || remember(&r, 2, v, 100, NULL) != STEER_EIO)
        _exit(3);
    struct stat st;
    if (fstat(r.fd, &st) || st.st_size != 16 + 24 + 800)
        _exit(4);
    if (remember(&r, 3, v, 10, NULL) || r.end != 16 + 24 + 800 + 24 + 80)
        _exit(5);
    close_records(&r);
}

/* One owner at a time, who is named; what is no regular file, or of an earlier version. */
static void test_store_owner(void) {
    char path[128], fifo[128], arguments[1024], process[64], program[64];
    records r = {.path = NULL}, other = {.path = NULL};
    steer_error e = {0};
    struct stat before, after;
    snprintf(path, sizeof path, "%s", in_temporary("owned"));
    unlink(path);
    CHECK_THAT(!open_records(&r, path, OWN, &e), "%s", e.text);
    put_record(&r, 1, 2);
    put_record(&r, 2, 2);
    CHECK_THAT(pwrite(r.fd, "SREC", 4, r.end) == 4, "can't be written"); /* half a record */
    CHECK_THAT(!stat(path, &before), "%s is gone", path);
    content c = content_of(path); /* which drops this process's lock */
    CHECK_THAT(!lock_store(&r, &e), "%s", e.text);
    snprintf(process, sizeof process, "process %ld is writing", (long)getpid());
    static const char *const second[] = {
        "reproduce weights/tiny-llama.bin --site 3,-1 --coeff 1 --store %s/owned",
        "merge %s/none --out %s/owned"};
    for (int i = 0; i < 2; i++) {
        snprintf(arguments, sizeof arguments, second[i], temporary, temporary);
        int status = run_program(PROGRAM, arguments, "");
        CHECK_THAT(status == 1 && strstr(complained, process) && strstr(complained, "owned"),
                   "`steer %s`: status %d, \"%s\"", arguments, status, complained);
    }
    /* It is a part of a merge all the same; the record that is being written is left out. */
    snprintf(arguments, sizeof arguments, "merge %s/owned --out %s/copy", temporary, temporary);
    CHECK_THAT(!run_program(PROGRAM, arguments, "") && strstr(shown, "2 records") &&
                   strstr(complained, "not written to its end: 4 bytes are left out"),
               "%s%s", shown, complained);
    CHECK_THAT(!stat(path, &after) && after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
                   after.st_mtim.tv_nsec == before.st_mtim.tv_nsec &&
                   after.st_size == before.st_size,
               "a part was changed");
    close_records(&r);
    CHECK_THAT(has_bytes(path, c.bytes, c.n), "a part was changed");
    free(c.bytes);

    /* The owner is gone: the next one cuts the half record off, and says so. */
    snprintf(arguments, sizeof arguments, "merge %s/copy --out %s/owned", temporary, temporary);
    CHECK_THAT(!run_program(PROGRAM, arguments, "") && strstr(complained, "4 bytes are cut off"),
               "%s", complained);
    CHECK_THAT(!stat(path, &after) && after.st_size == 16 + 2 * (24 + 16), "%d bytes",
               (int)after.st_size);

    const char *old = in_temporary("old");
    snprintf(fifo, sizeof fifo, "%s", in_temporary("fifo"));
    CHECK_THAT(!mkfifo(fifo, 0600), "no pipe");
    static const uint64_t version_1[] = {0x45524F5453, 1, 5, 6}; /* "STORE", 1 */
    write_bytes(old, version_1, sizeof version_1);
    const char *text = in_temporary("text");
    write_bytes(text, "What is a store?\nThis is none.\n", 31);

    const struct {
        const char *path, *word;
    } refused[] = {{fifo, "regular file"},  {"/dev/null", "regular file"},
                   {temporary, "irectory"}, {old, "earlier version"},
                   {text, "not a store"},   {in_temporary("no/such"), "No such file"}};

    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        for (int how = OWN; how <= SALVAGE; how++) {
            steer_status s = open_records(&r, refused[i].path, how, &e);
            const char *word =
                how != OWN && refused[i].path == temporary ? "regular file" : refused[i].word;
            CHECK_THAT(s && strstr(e.text, word), "%s: \"%s\"", refused[i].path, e.text);
            close_records(&r);
        }
    CHECK_THAT(has_bytes(old, version_1, sizeof version_1), "an old store was changed");
    snprintf(arguments, sizeof arguments,
             "reproduce weights/tiny-llama.bin --site 3,-1 --coeff 1 --store %s", fifo);
    snprintf(program, sizeof program, "timeout 60 %s", PROGRAM);
    CHECK_THAT(run_program(program, arguments, "") == 1 && strstr(complained, "regular file"),
               "a pipe: %s", complained);

    /* A file that a merge puts in a store's place: the lock is on the new one. */
    make_store(path, 1, 1, 1);
    CHECK_THAT(!open_records(&r, path, OWN, &e), "%s", e.text);
    make_store(in_temporary("new"), 1, 3, 1);
    CHECK_THAT(!rename(in_temporary("new"), path), "can't be renamed");
    CHECK_THAT(!open_records(&other, path, OWN, &e) && other.count == 3, "%s", e.text);
    close_records(&r);
    close_records(&other);

    const char *why = in_child(write_to_full_disk, (char *)(uintptr_t)in_temporary("full"), 20);
    CHECK_THAT(!why, "a full disk: %s", why);
    CHECK_THAT(!open_records(&r, in_temporary("full"), READ, &e) && r.count == 2, "%s", e.text);
    close_records(&r);
}

/* What runs took stands in their store, and in that which parts are merged into; a run's last
 * record counts, another model's do not, and a store of before has none. */
static void test_store_time(void) {
    static const uint64_t TIMED = 9;
    const char *parts[] = {in_temporary("time1"), in_temporary("time2")};
    steer_error e = {0};
    resources all;
    for (int i = 0; i < 2; i++) {
        records r = {.path = NULL};
        make_store(parts[i], 10 * (uint64_t)i + 1, 2, 3);
        CHECK_THAT(!open_records(&r, parts[i], OWN, &e), "%s", e.text);
        r.model = TIMED << 40;
        CHECK_THAT(!spent_in_all(&r, &all, &e) && all.runs == 1, "no run, but %d", all.runs);
        for (int run = 0; run < 2; run++) {
            begin_run(&r);
            r.begun.seconds -= 100;
            CHECK_THAT(!remember_time(&r, &e), "%s", e.text);
            r.begun.seconds -= 900;
            r.begun.processor -= 50;
            r.kept -= TIME_EVERY; /* a minute later */
            put_record(&r, 100 + (uint64_t)run, 1);
        }
        size_t count = r.count;
        put_record(&r, 102, 1);
        CHECK_THAT(r.count == count + 1, "kept more than once a minute");
        close_records(&r);
    }
    const char *sum = in_temporary("time");
    string merge = str("merge %.150s %.150s --out %.150s", parts[0], parts[1], sum);
    CHECK_THAT(!run_program(PROGRAM, merge.s, ""), "%s", complained);
    for (uint64_t model = TIMED; model < TIMED + 2; model++) {
        records r = {.path = NULL};
        CHECK_THAT(!open_records(&r, sum, OWN, &e), "%s", e.text);
        r.model = model << 40;
        begin_run(&r);
        CHECK_THAT(!spent_in_all(&r, &all, &e), "%s", e.text);
        int before = model == TIMED ? 4 : 0;
        CHECK_THAT(all.runs == 1 + before && fabs(all.seconds - 1000 * before) < 60 &&
                       fabs(all.processor - 50 * before) < 60 && all.memory > 1e6,
                   "%d runs, %g s, %g s of processors, %g bytes", all.runs, all.seconds,
                   all.processor, all.memory);
        close_records(&r);
    }
}

/* Answers are kept as they are made: when the fourth can't be, three are there, and the next run
 * makes the others only. */
static void test_store_answers(void) {
    enum { ANSWERS = 6, MAX_NEW = 5 };

    static const int prompt[ANSWERS][2] = {{'a', 'b'}, {'c', 'd'}, {'e', 'f'},
                                           {'g', '~'}, {'h', 'i'}, {'j', 'k'}};
    const char *path = in_temporary("answers.store");
    image file = small_image(F32, SMALL_GEMMA); /* its unembedding is its own */
    steer_model *m = open_image(&file);
    if (!m)
        return;
    float *poisoned = (float *)(uintptr_t)m->embed.data + '~' * m->config.d, right = *poisoned;
    steer_limits limits = {.streams = 1, .positions = 2 + MAX_NEW};
    double value[ANSWERS];
    int out[ANSWERS][MAX_NEW], first[ANSWERS][MAX_NEW];
    for (int run = 0; run < 3; run++) { /* poisoned; mended; all from the store */
        steer_error e = {0};
        experiment s = {.m = m, .e = &e, .store.model = 5};
        steer_job jobs[ANSWERS];
        for (int i = 0; i < ANSWERS; i++)
            jobs[i] = (steer_job){prompt[i], 2, MAX_NEW, .out = out[i]};
        *poisoned = run == 1 ? right : NAN;
        CHECK_THAT(!open_records(&s.store, path, OWN, &e), "%s", e.text);
        CHECK_THAT((s.c = steer_context_new(m, &limits, &e)) != NULL, "%s", e.text);
        steer_status status = s.c ? run_units(&s, jobs, ANSWERS, 0, value) : STEER_ENOMEM;
        CHECK_THAT(status == (run ? STEER_OK : STEER_ENONFINITE), "run %d: %s", run, e.text);
        CHECK_THAT(s.store.count == (run ? ANSWERS : 3), "run %d: %zu records", run, s.store.count);
        for (int i = 0; i < ANSWERS && run; i++) {
            CHECK_THAT(jobs[i].n_out > 0, "run %d, job %d: no answer", run, i);
            if (run == 1)
                memcpy(first[i], out[i], sizeof first[i]);
            CHECK_THAT(!memcmp(first[i], out[i], sizeof *first[i] * (size_t)jobs[i].n_out),
                       "run %d, job %d: another answer", run, i);
        }
        clear_experiment(&s);
    }
    steer_close(m);
    free(file.bytes);
}

/* ---------------------------------------------------------------- merging */

/* The program itself, as somebody who may only read the parts. */
static void merge_as_nobody(void *folder) {
    char source[256], out[256], log[256];
    snprintf(source, sizeof source, "%s/ro/part", (char *)folder);
    snprintf(out, sizeof out, "%s/rw/out", (char *)folder);
    snprintf(log, sizeof log, "%s/rw/log", (char *)folder);
    char *arguments[] = {"steer", "merge", source, "--out", out, NULL};
    if (!geteuid() && seteuid(65534))
        _exit(2);
    if (!freopen(log, "w", stdout) || !freopen(log, "w", stderr))
        _exit(3);
    if (!access(source, W_OK) && geteuid() == getuid())
        _exit(4);
    if (open(source, O_RDWR) >= 0)
        _exit(5); /* else this shows nothing */
    _exit(steer_main(5, arguments) ? 6 : 0);
}

/* Damaged parts are refused, with all that is known, or salvaged; a merge that fails changes
 * nothing; one that ends has everything, in whatever file --out leads to. */
static void test_merge(void) {
    const char *const t = temporary;
    char arguments[1024], program[1024];
    steer_error e = {0};
    records r = {.path = NULL};
    struct stat st;
    make_store(in_temporary("a"), 100, 5, 10);
    make_store(in_temporary("b"), 103, 6, 10); /* 103, 104 are in a as well */
    make_store(in_temporary("c"), 200, 4, 10);
    content a = content_of(in_temporary("a")), b = content_of(in_temporary("b"));
    size_t record = 24 + 80;
    if (!a.bytes || !b.bytes)
        return;

    snprintf(arguments, sizeof arguments, "merge %s/a %s/b %s/c --out %s/sum", t, t, t, t);
    CHECK_THAT(!run_program(PROGRAM, arguments, "") && strstr(shown, "sum: 13 records") &&
                   !*complained,
               "%s%s", shown, complained);
    content all = content_of(in_temporary("sum"));
    CHECK_THAT(all.n == 16 + 13 * record, "%zu bytes", all.n);
    CHECK_THAT(!run_program(PROGRAM, arguments, "") && strstr(shown, "sum: 13 records"), "%s",
               complained);
    CHECK_THAT(has_bytes(in_temporary("sum"), all.bytes, all.n), "merged again: another store");

    /* Into a store that has records, itself among the parts; behind a link, with its mode. */
    make_store(in_temporary("own"), 300, 2, 10);
    CHECK_THAT(!chmod(in_temporary("own"), 0640), "no such mode");
    CHECK_THAT(!symlink("own", in_temporary("link")), "no link");
    snprintf(arguments, sizeof arguments, "merge %s/own %s/a --out %s/link", t, t, t);
    CHECK_THAT(!run_program(PROGRAM, arguments, "") && strstr(shown, "link: 7 records"), "%s%s",
               shown, complained);
    CHECK_THAT(!lstat(in_temporary("link"), &st) && S_ISLNK(st.st_mode), "the link was replaced");
    CHECK_THAT(!stat(in_temporary("own"), &st) && (st.st_mode & 07777) == 0640 &&
                   st.st_size == (off_t)(16 + 7 * record),
               "mode %o, %d bytes", (unsigned)st.st_mode, (int)st.st_size);

    /* Damage: all of it is told, --out stays as it was, or does not appear. */
    b.bytes[16 + 2 * record + 8] ^= 16; /* a bit of record 2's key */
    write_bytes(in_temporary("b"), b.bytes, b.n);
    for (int is_new = 0; is_new < 2; is_new++) {
        const char *name = is_new ? "other" : "sum";
        snprintf(arguments, sizeof arguments, "merge %s/a %s/b %s/c --out %s/%s", t, t, t, t, name);
        int status = run_program(PROGRAM, arguments, "");
        CHECK_THAT(status == 1 && lines_of(complained) == 1 && strstr(complained, "--salvage") &&
                       strstr(complained, "/b: damaged at byte 224, with 2 good records before and "
                                          "3 after"),
                   "status %d: %s", status, complained);
    }
    CHECK_THAT(has_bytes(in_temporary("sum"), all.bytes, all.n), "--out was changed");
    CHECK_THAT(!exists(in_temporary("other")) && !exists(in_temporary("other.part0")) &&
                   !exists(in_temporary("sum.part0")),
               "a failed merge leaves files");
    CHECK_THAT(!symlink("nowhere", in_temporary("dangling")), "no link");
    snprintf(program, sizeof program, "merge %s/b --out %s/dangling", t, t);
    CHECK_THAT(run_program(PROGRAM, program, "") == 1 && !exists(in_temporary("nowhere")) &&
                   !lstat(in_temporary("dangling"), &st),
               "through a link to nothing: %s", complained);
    strcat(arguments, " --salvage");
    CHECK_THAT(!run_program(PROGRAM, arguments, "") && strstr(shown, "other: 12 records") &&
                   strstr(complained, "with 2 good records before and 3 after it, which are taken; "
                                      "lost: at least 1 records, 104 bytes"),
               "%s%s", shown, complained);
    CHECK_THAT(!open_records(&r, in_temporary("other"), READ, &e), "%s", e.text);
    for (uint64_t k = 100; k < 109; k++)
        CHECK_THAT(has_record(&r, k, 10) == (k != 105), "record %d", (int)k);
    close_records(&r);
    CHECK_THAT(has_bytes(in_temporary("b"), b.bytes, b.n), "a part was changed");

    /* A damaged --out is not replaced, whatever is asked for. */
    snprintf(arguments, sizeof arguments, "merge %s/a --out %s/b --salvage", t, t);
    CHECK_THAT(run_program(PROGRAM, arguments, "") == 1 && strstr(complained, "damaged"), "%s",
               complained);
    CHECK_THAT(has_bytes(in_temporary("b"), b.bytes, b.n), "a damaged store was changed");

    /* Short headers, no store, nothing at all. */
    for (size_t n = 0; n < 16; n++) {
        write_bytes(in_temporary("short"), a.bytes, n);
        snprintf(arguments, sizeof arguments, "merge %s/short %s/a --out %s/from-short %s", t, t, t,
                 n % 2 ? "--salvage" : "");
        int status = run_program(PROGRAM, arguments, "");
        CHECK_THAT(status == (n ? 1 : 0) && (!n || strstr(complained, "short: not a store")),
                   "%zu bytes: status %d, %s", n, status, complained);
    }

    /* What a killed merge left is not taken for records, nor in the way. */
    write_bytes(in_temporary("new.part0"), b.bytes, b.n);
    snprintf(arguments, sizeof arguments, "merge %s/a --out %s/new", t, t);
    CHECK_THAT(!run_program(PROGRAM, arguments, "") && strstr(shown, "new: 5 records") &&
                   has_bytes(in_temporary("new"), a.bytes, a.n),
               "%s%s", shown, complained);
    CHECK_THAT(!exists(in_temporary("new.part1")), "a part is left");

    /* A full disk: nothing happened. */
    make_store(in_temporary("large"), 500, 100, 100);
    snprintf(program, sizeof program, "trap '' XFSZ; ulimit -f 20; %s", PROGRAM);
    snprintf(arguments, sizeof arguments, "merge %s/large --out %s/sum", t, t);
    CHECK_THAT(run_program(program, arguments, "") == 1 && strstr(complained, "can't be written"),
               "%s", complained);
    CHECK_THAT(has_bytes(in_temporary("sum"), all.bytes, all.n), "--out was changed");
    CHECK_THAT(!exists(in_temporary("sum.part0")), "a failed merge leaves a file");

    /* Parts that can only be read, in a folder that can only be read. */
    snprintf(program, sizeof program,
             "chmod 711 %s && mkdir -m 755 %s/ro && mkdir -m 777 %s/rw && cp %s/a %s/ro/part && "
             "chmod 444 %s/ro/part && chmod 555 %s/ro",
             t, t, t, t, t, t, t);
    CHECK_THAT(!system(program), "no folders");
    const char *why = in_child(merge_as_nobody, temporary, 60);
    CHECK_THAT(!why, "a part that can only be read: %s", why);
    CHECK_THAT(has_bytes(in_temporary("rw/out"), a.bytes, a.n), "it was not merged");
    snprintf(program, sizeof program, "chmod 755 %s/ro && chmod 700 %s", t, t);
    CHECK_THAT(!system(program), "no folders");
    free(a.bytes);
    free(b.bytes);
    free(all.bytes);
}

/* ---------------------------------------------------------------- kill -9 */

/* Run a command line for at most so many seconds; 1: it took longer, and was killed. */
static int killed_after(const char *command, double most) {
    char line[2048];
    int status = 0;
    snprintf(line, sizeof line, "exec %s", command);
    fflush(stdout);
    double started = seconds();
    pid_t child = fork();
    if (!child) {
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    pid_t ended = 0;
    while (!ended && seconds() - started < most) {
        ended = waitpid(child, &status, WNOHANG);
        if (!ended)
            usleep(200);
    }
    if (!ended) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    }
    CHECK_THAT(!status || WIFSIGNALED(status), "`%s`: status %d", command, status);
    return WIFSIGNALED(status);
}

/* The records of a store that a killed process left; none is damaged. */
static size_t records_left(const char *path) {
    records r = {.path = NULL};
    steer_error e = {0};
    if (!exists(path))
        return 0;
    CHECK_THAT(!open_records(&r, path, READ, &e), "after a kill: %s", e.text);
    size_t n = r.count;
    close_records(&r);
    return n;
}

/* How often the sweeps kill: in the environment for `make torture`. */
static int kills(int usual) {
    const char *given = getenv("KILLS");
    return given ? atoi(given) : usual;
}

/* `reproduce` is killed at any time, two times in a row; the run that then goes to its end prints
 * what one that was never killed prints, from what the others kept. */
static void test_kill_reproduce(void) {
    char folder[96], command[1024], again[1024], model[128], store[128], out[128], path[128];
    int n = kills(SANITIZED ? 2 : 6), hit = 0, kept = 0;
    snprintf(folder, sizeof folder, "%s/kill", temporary);
    snprintf(model, sizeof model, "%s/model.bin", folder);
    snprintf(store, sizeof store, "%s/store", folder);
    snprintf(out, sizeof out, "%s/out", folder);
    snprintf(path, sizeof path, "%s/whole", folder);
    CHECK_THAT(!mkdir(folder, 0700), "%s: no folder", folder);
    image file = small_image(F32, SMALL_REFUSER);
    write_bytes(model, file.bytes, file.size);
    free(file.bytes);
    dice = 30;
    write_prompt_files(folder);
    const char *form = "env OMP_NUM_THREADS=1 %s reproduce %s --quick --limit 24 --val 16 "
                       "--train 80 --map 2 --patch 2 --exact 1 --max-new 12 %s %s >%s 2>/dev/null";
    snprintf(command, sizeof command, form, PROGRAM, model, "", "", path);
    snprintf(again, sizeof again, form, PROGRAM, model, "--store", store, out);
    double started = seconds();
    CHECK_THAT(!killed_after(command, 1e9), "killed");
    double whole_time = seconds() - started;
    content whole = content_of(path);
    CHECK_THAT(whole.bytes && strstr(whole.bytes, "sparsity"), "nothing printed");

    for (int i = 0; i < n; i++) {
        size_t before = 0;
        unlink(store);
        for (int k = 0; k < 2; k++) {
            hit += killed_after(again, whole_time * (i + 0.5 + k / 4.0) / n);
            size_t left = records_left(store);
            CHECK_THAT(left >= before, "%zu records, then %zu", before, left);
            before = left;
        }
        kept += before > 0;
        CHECK_THAT(!killed_after(again, 1e9), "killed");
        CHECK_THAT(whole.bytes && has_bytes(out, whole.bytes, whole.n),
                   "kill %d: another output, in %s", i, out);
    }
    CHECK_THAT(hit >= n / 2 && kept, "%d of %d runs killed, %d kept something", hit, 2 * n, kept);
    printf("  %d of %d runs of %.2f s killed; %d of %d stores had records\n", hit, 2 * n,
           whole_time, kept, n);
    free(whole.bytes);
}

/* `merge` is killed at any time: --out is what it was or has everything, and the next merge makes
 * the same store, byte for byte. */
static void test_kill_merge(void) {
    enum { EACH = SANITIZED ? 300 : 1500 };

    char command[1024], folder[96], all[128], path[128];
    int n = kills(SANITIZED ? 2 : 5), hit = 0, between = 0;
    snprintf(folder, sizeof folder, "%s/kill-merge", temporary);
    CHECK_THAT(!mkdir(folder, 0700), "%s: no folder", folder);
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%d", folder, i);
        make_store(path, 1 + 1000 * (uint64_t)i * EACH, EACH, 66);
    }
    snprintf(path, sizeof path, "%s/0", folder);
    content own = content_of(path), both = {NULL, 0};
    snprintf(all, sizeof all, "%s/all", folder);
    snprintf(command, sizeof command, "%s merge %s/1 %s/2 %s/3 --out %s >/dev/null", PROGRAM,
             folder, folder, folder, all);

    /* First --out is new, then a store that has records of its own. */
    for (int given = 0; given < 2 && own.bytes; given++) {
        if (given)
            write_bytes(all, own.bytes, own.n);
        double started = seconds();
        CHECK_THAT(!killed_after(command, 1e9), "killed");
        double time = seconds() - started;
        both = content_of(all);
        size_t before = given ? EACH : 0, after = before + 3 * EACH;
        CHECK_THAT(records_left(all) == after, "%zu records", records_left(all));
        for (int i = 0; i < n && both.bytes; i++) {
            unlink(all);
            if (given)
                write_bytes(all, own.bytes, own.n);
            hit += killed_after(command, time * (i + 0.5) / n);
            size_t left = records_left(all);
            CHECK_THAT(left == before || left == after, "kill %d: %zu records", i, left);
            between += left == before;
            CHECK_THAT(!killed_after(command, 1e9), "killed");
            CHECK_THAT(has_bytes(all, both.bytes, both.n), "kill %d: another store", i);
        }
        free(both.bytes);
        unlink(all);
    }
    CHECK_THAT(hit >= n / 2 && between, "%d killed, %d before their end", hit, between);
    printf("  %d of %d merges killed, %d before --out was replaced\n", hit, 2 * n, between);
    free(own.bytes);
}

/* Tests of what the library does with a model's file, with its caller's numbers, its compiler and
 * its stack. Included by test.c. */

/* The output of a command (the caller's to free, NULL if none can be read) and its exit status. */
static char *output_of(const char *command, int *status) {
    FILE *f = popen(command, "r");
    size_t size = 0;
    char *text = NULL;
    if (f && getdelim(&text, &size, 0, f) < 0) *(text = realloc(text, 1)) = 0;
    *status = f ? pclose(f) : -1;
    return text;
}

/* ---------------------------------------------------------------- read into memory, or mapped */

/* Logits [vocab] after three bytes. */
static float *few_logits(const steer_model *m) {
    float *copy = NULL;
    steer_error e = {0};
    steer_context *c = steer_context_new(m, &(steer_limits){.positions = 8}, &e);
    steer_row rows[] = {{0, 0, 'a', 0, 0}, {0, 1, 'n', 0, 0}, {0, 2, 'd', 1, 0}};
    steer_status s = c ? steer_begin(c, 0, NULL, -1, &e) : e.code;
    s = s ? s : steer_run(c, rows, 3, NULL, &e);
    CHECK_THAT(!s, "%s", e.text);
    if (!s) {
        copy = malloc(sizeof *copy * (size_t)m->config.vocab);
        copy_floats(copy, steer_logits(c, 2), (size_t)m->config.vocab);
    }
    steer_context_free(c);
    return copy;
}
static void run_few(void *model) { free(few_logits(model)); }

static void test_read_into_memory(void) {
    for (int k = 0; k < SMALL_FILES; k++) {
        image f = small_image(small_files[k].type, small_files[k].kind);
        const char *path = in_temporary("read.bin");
        steer_error e = {0};
        write_bytes(path, f.bytes, f.size);
        steer_model *read = steer_open(path, STEER_READ, &e), *borrowed = open_image(&f);
        CHECK_THAT(read, "%s", e.text);

        /* Its file is cut, then gone: the model is the same, to the bit. */
        CHECK_THAT(!truncate(path, 0), "%s", strerror(errno));
        const char *ended = read ? in_child(run_few, read, 20) : NULL;
        CHECK_THAT(!ended, "%s: with its file truncated %s", small_files[k].name, ended);
        CHECK_THAT(!unlink(path), "%s", strerror(errno));
        if (read && borrowed) {
            float *a = few_logits(read), *b = few_logits(borrowed);
            CHECK_THAT(a && b && !memcmp(a, b, sizeof *a * (size_t)read->config.vocab),
                       "%s: other logits than the file's", small_files[k].name);
            CHECK_THAT(!steer_verify(read, &e), "%s", e.text);
            free(a), free(b);
        }
        steer_close(read), steer_close(borrowed);
        free(f.bytes);
    }

    /* What is refused when mapped is refused when read, and a flag that is none. */
    steer_error e = {0};
    const char *const bad[] = {in_temporary("missing.bin"), temporary, "/dev/null", ""};
    for (int i = 0; i < 4; i++) {
        steer_model *m = steer_open(bad[i], STEER_READ, &e);
        CHECK_THAT(!m && e.code == STEER_EIO && *e.text, "\"%s\": %s", bad[i], e.text);
    }
    CHECK_THAT(!steer_open("weights/tiny-llama.bin", 2, &e) && e.code == STEER_EARG, "%s", e.text);
}

/* ---------------------------------------------------------------- compilers */

/* Of each compiler there is: each of these flags is refused, with the line to type, and only they
 * are. */
static void test_fast_math(void) {
    static const char *const compilers[] = {"cc", "gcc", "clang"};
    static const struct {
        const char *flags;
        int refused;
    } tried[] = {{"-Ofast", 1}, {"-O3 -ffast-math", 1}, {"-ffinite-math-only", 1}, {"-O3", 0}};
    int found = 0;
    for (size_t i = 0; i < sizeof compilers / sizeof *compilers; i++) {
        int status;
        char command[256];
        snprintf(command, sizeof command, "command -v %s", compilers[i]);
        free(output_of(command, &status));
        if (status) continue;

        found++;
        for (size_t k = 0; k < sizeof tried / sizeof *tried; k++) {
            snprintf(command, sizeof command,
                     "%s -std=gnu11 %s -fsyntax-only -DSTEER_NO_MAIN steer.c 2>&1", compilers[i],
                     tried[k].flags);
            char *said = output_of(command, &status);
            CHECK_THAT(!status == !tried[k].refused, "%s ends with %d", command, status);
            CHECK_THAT(!tried[k].refused || (said && strstr(said, "type: cc -O3 -march=native")),
                       "%s says %s", command, said);
            free(said);
        }
    }
    CHECK_THAT(found, "no compiler to try");
}

/* Tests of what the library does with a model's file, with its caller's numbers, its compiler and
 * its stack. Included by test.c. */
#include <pthread.h>

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

/* ---------------------------------------------------------------- stack */

/* Every public function that does more than look something up, on a small model and, for rows of
 * several parts and panels, on one of the box. */
static void *call_everything(void *model) {
    const steer_model *m = model;
    steer_error e = {0};
    set_threads(1); /* of this thread */
    steer_prompts p = {0};
    steer_status s = steer_prompts_load(&p, m, "weights/harmful-val.txt", 4, &e);
    steer_limits l = {.streams = 6, .positions = p.n ? p.lengths[0] + 16 : 64};
    for (int i = 0; i < p.n; i++) l.positions = max_int(l.positions, p.lengths[i] + 16);
    steer_context *c = s ? NULL : steer_context_new(m, &l, &e);
    size_t means = (size_t)3 * (size_t)m->eoi * (size_t)m->config.layers * (size_t)m->config.d;
    double *mean = zeros(2 * means, sizeof *mean);
    int prompts = c ? steer_means(c, &p, 0, mean, NULL, &e) : -1;
    CHECK_THAT(prompts == 4, "%s", e.text);
    if (prompts != 4) return NULL;

    steer_vector v = {0}, back = {0};
    for (size_t i = 0; i < means; i++) mean[means + i] = mean[i] * 0.5 + (double)(i % 7) * 0.01;
    s = steer_dim(&v, m, mean, mean + means, 1, -1, 1, &e);
    s = s ? s : steer_vector_save(&v, in_temporary("stack.vec"), &e);
    s = s ? s : steer_vector_load(&back, in_temporary("stack.vec"), m, &e);

    int out[6][8];
    char text[256];
    steer_plan plan = {.add = v.v, .coeff = 1, .layer = 1, .freeze = STEER_V};
    steer_job jobs[6];
    for (int i = 0; i < 6; i++)
        jobs[i] = (steer_job){.prompt = p.tokens[i % 4], .n_prompt = p.lengths[i % 4], .max_new = 8,
                              .plan = i < 3 ? &plan : NULL, .temperature = 1, .top_p = 0.9f,
                              .out = out[i]};
    s = s ? s : steer_generate(c, jobs, 6, NULL, NULL, &e);
    steer_decode(m, out[0], s ? 0 : jobs[0].n_out, text, sizeof text);

    int n = p.lengths[0];
    steer_tracer *t = s ? NULL : steer_tracer_new(m, 1, n, 5, 2, &e);
    steer_example x = {p.tokens[0], n, n - 4, 1, 1};
    steer_plan frozen = {.freeze = STEER_QK};
    double F, *scores = zeros(t ? steer_scores_width(t) : 1, sizeof *scores);
    double *node = zeros(t ? (size_t)t->graph.nodes : 1, sizeof *node);
    s = t ? steer_attribute(t, &x, v.v, STEER_KL, 2, scores, &e) : e.code;
    s = s ? s : steer_patch_exactly(t, &x, v.v, node, NULL, &e);
    s = s ? s : steer_faithfulness(t, &x, v.v, &frozen, 1, &F, &e);
    CHECK_THAT(!s, "%s", e.text);

    steer_tracer_free(t), steer_context_free(c);
    steer_vector_free(&v), steer_vector_free(&back), steer_prompts_free(&p);
    free(mean), free(scores), free(node);
    return NULL;
}
/* What steer.h says that a thread needs is enough: a painted stack shows how deep it went. */
static void test_stack(void) {
    enum { SAID = 96 << 10, GIVEN = 1 << 20, PAINT = 0xA5 };
    if (SANITIZED) {
        printf("  not measured: the sanitizer's frames are larger\n");
        return;
    }
    static const char *const models[] = {"weights/tiny-llama.bin", "weights/tiny-gemma.bin"};
    size_t deepest = 0;
    for (int i = 0; i < 2; i++) {
        steer_model *m = open_or_fail(models[i]);
        unsigned char *stack = mmap(NULL, GIVEN, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        pthread_attr_t a;
        pthread_t thread;
        memset(stack, PAINT, GIVEN);
        pthread_attr_init(&a);
        int ok = m && !pthread_attr_setstack(&a, stack, GIVEN) &&
                 !pthread_create(&thread, &a, call_everything, m) && !pthread_join(thread, NULL);
        CHECK_THAT(ok, "no thread of %d bytes of stack", GIVEN);
        size_t untouched = 0;
        while (ok && untouched < GIVEN && stack[untouched] == PAINT) untouched++;
        if (ok && GIVEN - untouched > deepest) deepest = GIVEN - untouched;
        munmap(stack, GIVEN), pthread_attr_destroy(&a), steer_close(m);
    }
    printf("  %.1f KB of stack\n", (double)deepest / 1024);
    CHECK_THAT(deepest <= SAID, "%zu bytes of stack, %d are said to do", deepest, SAID);
}

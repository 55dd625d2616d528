/* The tests of steer.c: a table of functions, run by `make test` from the repository's top. Goldens in
 * tests/golden are written by tools/oracle.py, which runs the same weights in PyTorch. The last line is
 * "N passed, N failed"; the exit status is 1 when anything failed. `tests/test NAME...` runs some. */
#define STEER_NO_MAIN
#pragma GCC diagnostic ignored "-Wunused-function" /* experiments are run by the command line's test */
#include "../steer.c"
#include <float.h>
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>

/* Under AddressSanitizer everything is slower: pure volume shrinks, no kind of test is left out. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(SANITIZED)
#define SANITIZED 1
#endif
#ifdef SANITIZED
#define PROGRAM "tests/steer-sanitized"
#define USER_PROGRAM "tests/user-sanitized"
#else
#define SANITIZED 0
#define PROGRAM "./steer"
#define USER_PROGRAM "./tests/user"
#endif

static int checks_failed;
static char test_name[64];
#define CHECK_THAT(condition, ...) \
    do { \
        if (!(condition)) { \
            if (checks_failed++ < 12) { \
                printf("  %s: line %d: %s: ", test_name, __LINE__, #condition); \
                printf(__VA_ARGS__); \
                printf("\n"); \
            } \
        } \
    } while (0)

/* ---------------------------------------------------------------- fixtures */

/* Element i of a random tensor, in [-1, 1): the rule is in tools/oracle.py. */
static double random_value(uint64_t seed, uint64_t kind, uint64_t layer, uint64_t i) {
    uint64_t z = (seed << 56 ^ kind << 48 ^ layer << 40 ^ i) + 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    return 2 * ((double)(z >> 40) * 0x1p-24) - 1;
}
static weight random_matrix(int seed, int kind, int layer, int rows, int cols, double scale, dtype type) {
    size_t n = (size_t)rows * cols;
    float *f = malloc(n * sizeof *f);
    for (size_t i = 0; i < n; i++)
        f[i] = (float)(random_value(seed, kind, layer, i) * scale);
    if (type == Q8 && cols % 32) type = BF16;
    if (type == F32) return (weight){f, NULL, F32, rows, cols};
    void *data = malloc(n * 2);
    float *scales = malloc(n / 32 * sizeof *scales + 1);
    for (size_t i = 0; i < n && type == BF16; i++) { /* to nearest, ties to even */
        uint32_t u;
        memcpy(&u, &f[i], 4);
        ((uint16_t *)data)[i] = (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
    }
    for (size_t g = 0; g < n / 32 && type == Q8; g++) {
        float top = 0;
        for (int i = 0; i < 32; i++)
            top = fmaxf(top, fabsf(f[g * 32 + i]));
        scales[g] = top / 127;
        for (int i = 0; i < 32; i++)
            ((int8_t *)data)[g * 32 + i] = (int8_t)rintf(f[g * 32 + i] / (top > 0 ? scales[g] : 1));
    }
    free(f);
    return (weight){data, scales, type, rows, cols};
}
static const float *random_vector(int seed, int kind, int layer, int n, double center, double scale) {
    float *f = malloc((size_t)n * sizeof *f);
    for (int i = 0; i < n; i++)
        f[i] = (float)(center + scale * random_value(seed, kind, layer, i));
    return f;
}
/* A model without a tokenizer, as tools/oracle.py makes it from the same numbers. */
static steer_model *random_model(int seed, double base, steer_config c, dtype type) {
    steer_model *m = calloc(1, sizeof *m);
    c.n_eot = 1, c.max_seq = 512;
    snprintf(c.name, sizeof c.name, "random %d", seed);
    m->config = c, m->eoi = 1;
    m->blocks = calloc((size_t)c.layers, sizeof *m->blocks);
    int qd = c.heads * c.head_dim, kd = c.kv_heads * c.head_dim;
    double gain = 1 - c.norm_offset;
    m->embed = random_matrix(seed, 0, 0, c.vocab, c.d, 1.0 / c.embed_scale, type);
    m->unembed = c.tied ? m->embed : random_matrix(seed, 1, 0, c.vocab, c.d, sqrt(3.0 / c.d), type);
    m->final_norm = random_vector(seed, 2, 0, c.d, gain, 0.25);
    float *freq = malloc(sizeof *freq * (size_t)c.head_dim);
    for (int i = 0; i < c.head_dim / 2; i++)
        freq[i] = (float)pow(base, -2.0 * i / c.head_dim);
    m->rope_freq = freq;
    for (int b = 0; b < c.layers; b++) {
        block *w = &m->blocks[b];
        w->attn_norm = random_vector(seed, 16, b, c.d, gain, 0.25);
        w->q = random_matrix(seed, 17, b, qd, c.d, sqrt(3.0 / c.d), type);
        w->k = random_matrix(seed, 18, b, kd, c.d, sqrt(3.0 / c.d), type);
        w->v = random_matrix(seed, 19, b, kd, c.d, sqrt(3.0 / c.d), type);
        if (c.qkv_bias) {
            w->q_bias = random_vector(seed, 20, b, qd, 0, 0.5);
            w->k_bias = random_vector(seed, 21, b, kd, 0, 0.5);
            w->v_bias = random_vector(seed, 22, b, kd, 0, 0.5);
        }
        w->o = random_matrix(seed, 23, b, c.d, qd, sqrt(3.0 / qd), type);
        w->post_attn_norm = random_vector(seed, 24, b, c.d, gain, 0.25);
        w->mlp_norm = random_vector(seed, 25, b, c.d, gain, 0.25);
        w->gate = random_matrix(seed, 26, b, c.ff, c.d, sqrt(3.0 / c.d), type);
        w->up = random_matrix(seed, 27, b, c.ff, c.d, sqrt(3.0 / c.d), type);
        w->down = random_matrix(seed, 28, b, c.d, c.ff, sqrt(3.0 / c.ff), type);
        w->post_mlp_norm = random_vector(seed, 29, b, c.d, gain, 0.25);
    }
    return m;
}
static steer_model *gqa_model(int gemma) {
    steer_config c = {.d = 64, .layers = 4, .heads = 4, .kv_heads = 2, .head_dim = 16, .ff = 176, .vocab = 96,
                      .tied = 1, .norm_eps = 1e-5f, .embed_scale = 1, .query_scale = 0.25f};
    if (gemma)
        c.post_norms = c.gelu = 1, c.norm_offset = 1, c.attn_cap = 20, c.final_cap = 30, c.window = 8,
        c.window_every = 2;
    return random_model(7 + gemma, 10000, c, F32);
}
static steer_model *open_or_fail(const char *path) {
    steer_error e = {0};
    steer_model *m = steer_open(path, &e);
    CHECK_THAT(m, "%s", e.text);
    return m;
}

/* ---------------------------------------------------------------- goldens */

typedef struct { /* one case of a golden file, as far as it has been read */
    char name[128];
    steer_model *m;
    int own; /* made from random numbers, not opened */
    int tokens[512], n_tokens;
    float *vector, *keep;
    steer_plan plan;
} golden;

static int parse_floats(const char *s, float *out, int cap) {
    int n = 0;
    for (char *end; n < cap; s = end, n++) {
        out[n] = strtof(s, &end);
        if (end == s) break;
    }
    return n;
}
static int parse_ints(const char *s, int *out, int cap) {
    int n = 0;
    for (char *end; n < cap; s = end, n++) {
        out[n] = (int)strtol(s, &end, 10);
        if (end == s) break;
    }
    return n;
}
static double worst; /* the largest error seen by a golden test */

/* Logits at position pos, teacher-forced under the case's plan. A float32 has 24 bits: logits of the tied
 * random model go to 148, where PyTorch's own float32 is 7e-5 away from its float64. So beyond 50 the
 * tolerance grows with the largest logit. */
static void golden_logits(golden *g, int pos, const float *expected, int n, double tolerance) {
    int twin = g->plan.freeze != 0, vocab = g->m->config.vocab;
    steer_limits l = {.streams = 2, .positions = g->n_tokens, .rows = 2 * g->n_tokens};
    steer_error e = {0};
    steer_context *c = steer_context_new(g->m, &l, &e);
    steer_row rows[1024];
    CHECK_THAT(c && n == vocab, "%s: %s, %d of %d logits", g->name, e.text, n, vocab);
    if (!c || n != vocab) return;
    steer_job job = {.prompt = g->tokens, .n_prompt = g->n_tokens};
    int count = put_rows(rows, &job, 0, twin ? 1 : -1, 0, g->n_tokens);
    rows[(pos + 1) * (1 + twin) - 1].logits = 1;
    steer_plan plan = g->plan;
    if (twin) steer_begin(c, 1, NULL, -1, &e);
    steer_status s = steer_begin(c, 0, plan.add || plan.ablate ? &plan : NULL, twin ? 1 : -1, &e);
    s = s ? s : steer_run(c, rows, count, NULL, &e);
    CHECK_THAT(!s, "%s: %s", g->name, e.text);
    if (!s) {
        const float *logits = steer_logits(c, (pos + 1) * (1 + twin) - 1);
        double error = 0, largest = 0;
        for (int i = 0; i < n; i++) {
            error = fmax(error, fabs((double)logits[i] - expected[i]));
            largest = fmax(largest, fabs((double)expected[i]));
        }
        worst = fmax(worst, error);
        CHECK_THAT(error <= fmax(tolerance, 2e-6 * largest), "%s: position %d: max abs error %.3g", g->name, pos, error);
        if (plan.add || plan.ablate) CHECK_THAT(!check_hits(&plan, &e), "%s: %s", g->name, e.text);
    }
    steer_context_free(c);
}
static int golden_file(const char *path, double tolerance) {
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t size = 0;
    golden g = {0};
    float *numbers = malloc(sizeof *numbers * 4096), last[24] = {0};
    steer_model *random = NULL; /* the last random model, kept while cases name it again */
    dtype last_type = F32;
    int cases = 0;
    worst = 0;
    CHECK_THAT(f, "%s is missing", path);
    while (f && getline(&line, &size, f) > 0) {
        char word[32] = "";
        int at = 0;
        sscanf(line, "%31s%n", word, &at);
        char *rest = line + at;
        rest[strcspn(rest, "\n")] = 0;
        if (!strcmp(word, "case")) {
            snprintf(g.name, sizeof g.name, "%s", rest + 1);
            memset(&g.plan, 0, sizeof g.plan);
            cases++;
        } else if (!strcmp(word, "model"))
            g.m = open_or_fail(rest + 1);
        else if (!strcmp(word, "random")) {
            float p[24] = {0};
            CHECK_THAT(parse_floats(rest, p, 24) == 21, "%s: a random model of other than 21 numbers", g.name);
            char *type = getline(&line, &size, f) > 0 ? line : NULL;
            dtype t = type && strstr(type, "bf16") ? BF16 : type && strstr(type, "q8") ? Q8 : F32;
            steer_config c = {.d = (int)p[2], .layers = (int)p[3], .heads = (int)p[4], .kv_heads = (int)p[5],
                              .head_dim = (int)p[6], .ff = (int)p[7], .vocab = (int)p[8], .qkv_bias = (int)p[9],
                              .post_norms = (int)p[10], .gelu = (int)p[11], .tied = (int)p[12], .window = (int)p[13],
                              .window_every = (int)p[14], .norm_eps = p[15], .norm_offset = p[16], .attn_cap = p[17],
                              .final_cap = p[18], .embed_scale = p[19], .query_scale = p[20]};
            if (!random || memcmp(p, last, sizeof p) || t != last_type) random = random_model((int)p[0], (double)p[1], c, t);
            memcpy(last, p, sizeof p), last_type = t;
            g.m = random, g.own = 1;
        } else if (!strcmp(word, "tokens"))
            g.n_tokens = parse_ints(rest, g.tokens, 512);
        else if (!strcmp(word, "vector")) {
            g.vector = malloc(sizeof(float) * 4096);
            CHECK_THAT(parse_floats(rest, g.vector, 4096) == g.m->config.d, "%s: a vector of another width", g.name);
        } else if (!strcmp(word, "add")) {
            sscanf(rest, "%d %f", &g.plan.layer, &g.plan.coeff);
            g.plan.add = g.vector;
        } else if (!strcmp(word, "ablate"))
            g.plan.ablate = g.vector;
        else if (!strcmp(word, "keep")) {
            g.keep = malloc(sizeof(float) * 512);
            parse_floats(rest, g.keep, 512);
            g.plan.keep = g.keep;
        } else if (!strcmp(word, "freeze"))
            g.plan.freeze = strstr(rest, "qk") ? STEER_QK : strstr(rest, "mlp") ? STEER_MLP : STEER_V;
        else if (!strcmp(word, "remove"))
            g.plan.remove = strstr(rest, "svv") ? STEER_SVV : STEER_MLP_DIRECT;
        else if (!strcmp(word, "logits") && g.m) {
            char *end;
            int pos = (int)strtol(rest, &end, 10);
            golden_logits(&g, pos, numbers, parse_floats(end, numbers, 4096), tolerance);
        } else if (!strcmp(word, "end") && !g.own)
            steer_close(g.m), g.m = NULL;
        else if (!strcmp(word, "end"))
            g.own = 0; /* a random model's arrays are left to the end of the process */
    }
    if (f) fclose(f);
    free(line), free(numbers);
    printf("  %s: %d cases, largest error %.2g\n", path, cases, worst);
    CHECK_THAT(cases > 0, "%s: no cases", path);
    return cases;
}
static void test_golden_random(void) { golden_file("tests/golden/random.txt", 1e-4); }
static void test_golden_box(void) { golden_file("tests/golden/box.txt", 1e-4); }
static void test_golden_exact(void) { golden_file("tests/golden/exact64.txt", 1e-4); }

typedef struct {
    const char *name;
    void (*run)(void);
    const char *what;
} test;
static const test tests[] = {
    {"golden-random", test_golden_random, "logits of random models equal PyTorch's"},
    {"golden-box", test_golden_box, "logits of the models in the box equal PyTorch's"},
    {"golden-exact", test_golden_exact, "and PyTorch's in float64"},
};
int main(int argc, char **argv) {
    int passed = 0, failed = 0;
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        int wanted = argc < 2;
        for (int k = 1; k < argc; k++)
            wanted |= !strcmp(argv[k], tests[i].name);
        if (!wanted) continue;
        double started = seconds();
        checks_failed = 0;
        snprintf(test_name, sizeof test_name, "%s", tests[i].name);
        tests[i].run();
        printf("%s %-16s %s (%.1f s)\n", checks_failed ? "FAIL" : "ok  ", tests[i].name, tests[i].what,
               seconds() - started);
        fflush(stdout);
        passed += !checks_failed, failed += !!checks_failed;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}

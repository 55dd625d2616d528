/* The tests of steer.c: a table of functions, run by `make test` from the repository's top.
 * Goldens in tests/golden are written by tools/oracle.py, which runs the same weights in
 * PyTorch. The last line is "N passed, N failed"; the exit status is 1 when anything failed.
 * `tests/test NAME...` runs some. */
#define main steer_main
#include "../steer.c"
#undef main
#include <float.h>

/* Tracers that are parts of a test's structs. */
static steer_status new_tracer(tracer *t, const steer_model *m, int layer, int max, int answers,
                               int cut_streams, steer_error *e) {
    tracer *made = steer_tracer_new(m, layer, max, answers, cut_streams, e);
    if (made) *t = *made;
    return free(made), made ? STEER_OK : e->code;
}
static void free_tracer(tracer *t) {
    steer_context_free(t->c), free(t->memory);
    memset(t, 0, sizeof *t);
}

/* Under AddressSanitizer everything is slower: pure volume shrinks, no kind of test is left out. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(SANITIZED)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
#define PROGRAM (SANITIZED ? "tests/steer-sanitized" : "./steer")
#define USER_PROGRAM (SANITIZED ? "tests/user-sanitized" : "tests/user")

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

#include "fixtures.inc.c"

static steer_model *open_or_fail(const char *path) {
    steer_error e = {0};
    steer_model *m = steer_open(path, 0, &e);
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
    changes plan;
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
/* The numbers of a line "random SEED BASE ...". */
static steer_config random_config(const float *p) {
    return (steer_config){.d = (int)p[2], .layers = (int)p[3], .heads = (int)p[4],
                          .kv_heads = (int)p[5], .head_dim = (int)p[6], .ff = (int)p[7],
                          .vocab = (int)p[8], .qkv_bias = (int)p[9], .post_norms = (int)p[10],
                          .gelu = (int)p[11], .tied = (int)p[12], .window = (int)p[13],
                          .window_every = (int)p[14], .norm_eps = p[15], .norm_offset = p[16],
                          .attn_cap = p[17], .final_cap = p[18], .embed_scale = p[19],
                          .query_scale = p[20]};
}
static double worst; /* the largest error seen by a golden test */

/* Logits at position pos, teacher-forced under the case's plan. A float32 has 24 bits: logits of
 * the tied random model go to 148, where PyTorch's own float32 is 7e-5 away from its float64. So
 * beyond 50 the tolerance grows with the largest logit. */
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
    changes plan = g->plan;
    if (twin) steer_begin(c, 1, NULL, -1, NULL, &e);
    steer_status s = steer_begin(c, 0, plan.add || plan.ablate ? plan_of(&plan) : NULL,
                                 twin ? 1 : -1, plan.hits, &e);
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
        CHECK_THAT(error <= fmax(tolerance, 2e-6 * largest), "%s: position %d: max abs error %.3g",
                   g->name, pos, error);
        if (plan.add || plan.ablate) CHECK_THAT(!check_hits(&plan.plan, plan.hits, &e), "%s: %s", g->name, e.text);
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
        } else if (!strcmp(word, "model")) g.m = open_or_fail(rest + 1);
        else if (!strcmp(word, "random")) {
            float p[24] = {0};
            CHECK_THAT(parse_floats(rest, p, 24) == 21,
                       "%s: a random model of other than 21 numbers", g.name);
            char *type = getline(&line, &size, f) > 0 ? line : NULL;
            dtype t = type && strstr(type, "bf16") ? BF16 : type && strstr(type, "q8") ? Q8 : F32;
            steer_config c = random_config(p);
            if (!random || memcmp(p, last, sizeof p) || t != last_type) {
                free_random_model(random);
                random = random_model((int)p[0], (double)p[1], c, t);
            }
            memcpy(last, p, sizeof p), last_type = t;
            g.m = random, g.own = 1;
        } else if (!strcmp(word, "tokens")) g.n_tokens = parse_ints(rest, g.tokens, 512);
        else if (!strcmp(word, "vector")) {
            free(g.vector);
            g.vector = malloc(sizeof(float) * 4096);
            CHECK_THAT(parse_floats(rest, g.vector, 4096) == g.m->config.d,
                       "%s: a vector of another width", g.name);
        } else if (!strcmp(word, "add")) {
            sscanf(rest, "%d %f", &g.plan.layer, &g.plan.coeff);
            g.plan.add = g.vector;
        } else if (!strcmp(word, "ablate")) g.plan.ablate = g.vector;
        else if (!strcmp(word, "keep")) {
            free(g.keep);
            g.keep = malloc(sizeof(float) * 512);
            parse_floats(rest, g.keep, 512);
            g.plan.keep = g.keep;
        } else if (!strcmp(word, "freeze"))
            g.plan.freeze = strstr(rest, "qk")    ? STEER_QK
                            : strstr(rest, "mlp") ? STEER_MLP
                                                  : STEER_V;
        else if (!strcmp(word, "remove"))
            g.plan.remove = strstr(rest, "svv") ? STEER_SVV : STEER_MLP_DIRECT;
        else if (!strcmp(word, "logits") && g.m) {
            char *end;
            int pos = (int)strtol(rest, &end, 10);
            golden_logits(&g, pos, numbers, parse_floats(end, numbers, 4096), tolerance);
        } else if (!strcmp(word, "end") && !g.own) steer_close(g.m), g.m = NULL;
        else if (!strcmp(word, "end")) g.own = 0;
    }
    if (f) fclose(f);
    free_random_model(random);
    free(line), free(numbers), free(g.vector), free(g.keep);
    printf("  %s: %d cases, largest error %.2g\n", path, cases, worst);
    CHECK_THAT(cases > 0, "%s: no cases", path);
    return cases;
}
static void test_golden_random(void) { golden_file("tests/golden/random.txt", 1e-4); }
static void test_golden_box(void) { golden_file("tests/golden/box.txt", 1e-4); }
static void test_golden_exact(void) { golden_file("tests/golden/exact64.txt", 1e-4); }

/* ---------------------------------------------------------------- patching against PyTorch */

typedef struct { /* one case of patch.txt */
    char name[128], metric[16];
    steer_model *m;
    int own, tokens[512], n, prompt, layer, flag, steps, ran;
    float coeff, *vector;
    tracer t;
    example x;
    double *scores, *node, *edge;
    unsigned char *keep;
} patch_case;
typedef struct { double largest, error; } fit; /* of a list of numbers: relative to its largest */

static void compare(fit *f, double got, double expected) {
    double off = fabs(got - expected);
    f->largest = fmax(f->largest, fabs(expected));
    f->error = fmax(f->error, isnan(off) ? INFINITY : off); /* fmax alone drops a NaN */
}
/* Run the case when its first result is read. */
static int run_case(patch_case *p) {
    steer_error e = {0};
    int metric = !strcmp(p->metric, "logit")   ? STEER_LOGIT
                 : !strcmp(p->metric, "dirkl") ? STEER_DIR_KL
                                               : STEER_KL;
    if (p->ran) return p->ran > 0;
    p->ran = -1;
    steer_status s = new_tracer(&p->t, p->m, p->layer, p->n, p->n - p->prompt + 1, 5, &e);
    p->x = (example){p->tokens, p->n, p->prompt, p->coeff, p->flag};
    if (!s) {
        size_t graph = (size_t)p->t.graph.slots * (size_t)p->t.graph.nodes;
        p->scores = calloc(scores_width(&p->t), sizeof(double));
        p->node = calloc((size_t)p->t.graph.nodes, sizeof(double));
        p->edge = calloc(graph, sizeof(double));
        p->keep = calloc(graph, 1);
        s = attribute(&p->t, &p->x, p->vector, metric, p->steps, p->scores, &e);
    }
    CHECK_THAT(!s, "%s: %s", p->name, e.text);
    if (!s) p->ran = 1;
    return !s;
}
/* The circuit's logits at one position, all streams of cut edges in one batch. */
static void circuit_logits(patch_case *p, int pos, const double *expected, int n, fit *f) {
    changes base = {.layer = p->layer, .start = p->t.tape[0].resid};
    changes circuit = {.layer = p->layer, .start = p->t.tape[0].resid, .add = p->vector,
                       .coeff = p->coeff, .cut = p->keep};
    const steer_plan *plans[2] = {plan_of(&base), plan_of(&circuit)};
    steer_error e = {0};
    float final[512], *logits = malloc(sizeof(float) * (size_t)n);
    CHECK_THAT(!run_example(&p->t, &p->x, plans, 2, NULL, &e), "%s: %s", p->name, e.text);
    final_norm(p->t.c, p->n + pos, final);
    matmul(logits, final, &p->m->unembed, NULL, 1);
    for (int i = 0; i < n; i++) compare(f, (double)logits[i], expected[i]);
    free(logits);
}
static int parse_doubles(const char *s, double *out, int cap) {
    int n = 0;
    for (char *end; n < cap; s = end, n++) {
        out[n] = strtod(s, &end);
        if (end == s) break;
    }
    return n;
}
/* Gradients at every site, IG scores of nodes and edges in both forms, exact patching, circuits:
 * tools/golden_patch.py in float64, brute force with hooks. Errors relative to a line's largest
 * number (scores: a case's), 1e-4; edge scores 1e-3 above the median, Pearson 0.99999. */
static void test_golden_patch(void) {
    FILE *f = fopen("tests/golden/patch.txt", "r");
    char *line = NULL;
    size_t size = 0;
    int cases = 0, d, nodes, n_lines = 0;
    double *v = malloc(sizeof *v * 40000), worst_gradient = 0, worst_score = 0, worst_exact = 0,
           worst_circuit = 0, gap10 = 0;
    fit score[2] = {{0, 0}, {0, 0}}, exact = {0, 0}, circuit = {0, 0};
    patch_case p = {0};
    CHECK_THAT(f, "tests/golden/patch.txt is missing");
    while (f && getline(&line, &size, f) > 0) {
        char word[32] = "";
        int at = 0, i;
        sscanf(line, "%31s%n", word, &at);
        char *rest = line + at;
        rest[strcspn(rest, "\n")] = 0;
        int n = parse_doubles(rest, v, 40000);
        i = n ? (int)v[0] : 0, n_lines++;
        if (!strcmp(word, "case")) {
            memset(&p, 0, sizeof p), cases++;
            memset(score, 0, sizeof score), memset(&exact, 0, sizeof exact),
                memset(&circuit, 0, sizeof circuit);
            snprintf(p.name, sizeof p.name, "%s", rest + 1);
        } else if (!strcmp(word, "random")) {
            float numbers[24] = {0};
            parse_floats(rest, numbers, 24);
            p.m = random_model((int)numbers[0], (double)numbers[1], random_config(numbers), F32);
            p.own = 1;
        } else if (!strcmp(word, "model")) p.m = open_or_fail(rest + 1);
        else if (!strcmp(word, "layer")) p.layer = i;
        else if (!strcmp(word, "coeff")) p.coeff = (float)v[0];
        else if (!strcmp(word, "tokens")) p.n = parse_ints(rest, p.tokens, 512);
        else if (!strcmp(word, "prompt")) p.prompt = i;
        else if (!strcmp(word, "flag")) p.flag = i;
        else if (!strcmp(word, "steps")) p.steps = i;
        else if (!strcmp(word, "metric")) sscanf(rest, "%15s", p.metric);
        else if (!strcmp(word, "vector")) {
            p.vector = malloc(sizeof(float) * (size_t)n);
            for (int k = 0; k < n; k++) p.vector[k] = (float)v[k];
        }
        if (!p.steps || !strcmp(word, "steps") || !run_case(&p)) continue; /* the head of a case */
        d = p.m->config.d, nodes = p.t.graph.nodes;
        if (!strcmp(word, "poi")) {
            CHECK_THAT(n == (int)p.scores[SCORE_POSITIONS], "%s: %d positions of interest", p.name,
                       (int)p.scores[SCORE_POSITIONS]);
            for (int k = 0; k < n && k < (int)p.scores[SCORE_POSITIONS]; k++)
                CHECK_THAT(p.t.poi[k] == (int)v[k] - p.prompt + 1, "%s: position %d", p.name, k);
        } else if (!strcmp(word, "total")) {
            CHECK_THAT(fabs(p.scores[SCORE_TOTAL] - v[0]) <= 1e-4 * fmax(1, fabs(v[0])),
                       "%s: total effect %.7g, not %.7g", p.name, p.scores[SCORE_TOTAL], v[0]);
            if (p.steps == 10) gap10 = fmax(gap10, fabs(p.scores[SCORE_ESTIMATE] / v[0] - 1));
        } else if (!strcmp(word, "gout") || !strcmp(word, "gin")) {
            fit g = {0, 0};
            const float *mine = (word[1] == 'o' ? p.t.grad.out : p.t.grad.in) + i * p.n * d;
            CHECK_THAT(n == 1 + p.n * d, "%s: %s %d has %d numbers", p.name, word, i, n - 1);
            for (int k = 1; k < n; k++) compare(&g, (double)mine[k - 1], v[k]);
            double off = g.error / fmax(g.largest, 1e-3);
            worst_gradient = fmax(worst_gradient, off);
            CHECK_THAT(off <= 1e-4, "%s: %s %d: relative error %.3g", p.name, word, i, off);
        } else if (!strcmp(word, "node") || !strcmp(word, "dvector")) {
            const double *mine = *word == 'n' ? p.scores + SCORE_NODES : dvector_of(&p.t, p.scores);
            fit g = {0, 0};
            CHECK_THAT(n == (*word == 'n' ? nodes : d), "%s: %s of %d", p.name, word, n);
            for (int k = 0; k < n; k++) compare(&g, mine[k], v[k]);
            worst_score = fmax(worst_score, g.error / g.largest);
            CHECK_THAT(g.error <= 1e-4 * g.largest, "%s: %s: error %.3g", p.name, word,
                       g.error / g.largest);
        } else if (!strcmp(word, "official") || !strcmp(word, "aware")) {
            CHECK_THAT(n == 1 + nodes, "%s: %s %d has %d numbers", p.name, word, i, n - 1);
            for (int u = 0; u < nodes; u++)
                compare(&score[*word == 'a'], edges_of(&p.t, p.scores, *word == 'a')[i * nodes + u],
                        v[1 + u]);
        } else if (!strcmp(word, "exactnode")) {
            steer_error e = {0};
            CHECK_THAT(!steer_patch_exactly(&p.t, &p.x, p.vector, p.node, p.edge, &e), "%s: %s",
                       p.name, e.text);
            CHECK_THAT(n == nodes, "%s: %d exact nodes", p.name, n);
            for (int u = 0; u < nodes; u++) compare(&exact, p.node[u], v[u]);
        } else if (!strcmp(word, "exact")) {
            for (int u = 0; u < nodes; u++)
                compare(&exact, p.edge[i * nodes + u], v[1 + u]);
        } else if (!strcmp(word, "keep")) { /* cut: causal edges that are not kept */
            const char *bits = rest + 1 + strcspn(rest + 1, " ") + 1;
            CHECK_THAT((int)strlen(bits) == nodes, "%s: keep %d: %s", p.name, i, bits);
            for (int u = 0; u < nodes; u++)
                p.keep[i * nodes + u] = u < senders(&p.t.graph, i) && bits[u] == '0';
        } else if (!strcmp(word, "circuit")) circuit_logits(&p, i, v + 1, n - 1, &circuit);
        else if (!strcmp(word, "faith")) {
            changes plan = {.layer = p.layer, .cut = p.keep};
            steer_error e = {0};
            double F = 0;
            CHECK_THAT(!steer_faithfulness(&p.t, &p.x, p.vector, plan_of(&plan), 1, &F, &e), "%s: %s",
                       p.name, e.text);
            CHECK_THAT(fabs(F - v[0]) <= 1e-4 * fmax(1, fabs(v[0])),
                       "%s: faithfulness %.7g not %.7g", p.name, F, v[0]);
        } else if (!strcmp(word, "end")) {
            for (int k = 0; k < 2; k++) {
                double off = score[k].error / fmax(score[k].largest, 1e-9);
                worst_score = fmax(worst_score, off);
                CHECK_THAT(off <= 1e-4, "%s: edge scores %d: relative error %.3g", p.name, k, off);
            }
            worst_exact = fmax(worst_exact, exact.error),
            worst_circuit = fmax(worst_circuit, circuit.error);
            CHECK_THAT(exact.error <= 1e-4, "%s: exact patching: error %.3g", p.name, exact.error);
            CHECK_THAT(circuit.error <= 1e-4, "%s: circuit logits: error %.3g", p.name,
                       circuit.error);
            free_tracer(&p.t), free(p.scores), free(p.node), free(p.edge), free(p.keep);
            free(p.vector);
            if (p.own) free_random_model(p.m);
            else steer_close(p.m);
        }
    }
    if (f) fclose(f);
    free(line), free(v);
    printf("  patch.txt: %d cases; largest errors: gradients %.2g, scores %.2g (relative), exact "
           "patching %.2g, circuit logits %.2g; completeness gap at 10 steps %.2g\n",
           cases, worst_gradient, worst_score, worst_exact, worst_circuit, gap10);
    CHECK_THAT(cases > 0 && n_lines > 100, "no cases");
}

/* Losses and gradients of NTP and PO, AdamW's steps, steering value vectors and their logit lens,
 * sparse vectors: tools/golden_patch.py in float64. Relative errors of whole lines. */
static double relative(const double *expected, int n, const float *f, const double *g) {
    double off = 0, all = 0;
    for (int i = 0; i < n; i++) {
        double x = f ? (double)f[i] : g[i];
        off += (x - expected[i]) * (x - expected[i]), all += expected[i] * expected[i];
    }
    return sqrt(off / fmax(all, 1e-30));
}
static void test_golden_train(void) {
    enum { MAX = 1024 };
    FILE *f = fopen("tests/golden/train.txt", "r");
    char *line = NULL, name[128] = "";
    size_t size = 0;
    double v[MAX], grad[3 * MAX], s[MAX], effect[MAX], adam[2 * MAX], lr0 = 0;
    float vector[MAX], now[MAX], sum[MAX], logits[8], tau = 0;
    int ids[8], layer = 0, d = 0, dropped = 0, lines = 0, wrong = 0;
    double factor = 0, worst_loss = 0, worst_gradient = 0, worst_adam = 0, worst_svv = 0;
    steer_pair p = {0};
    steer_training how = standard_training;
    steer_model *m = NULL;
    tracer t = {0};
    steer_error e = {0};
    CHECK_THAT(f, "tests/golden/train.txt is missing");
    while (f && getline(&line, &size, f) > 0) {
        char word[32] = "";
        int at = 0;
        sscanf(line, "%31s%n", word, &at);
        char *rest = line + at;
        rest[strcspn(rest, "\n")] = 0;
        int n = parse_doubles(rest, v, MAX);
        lines++;
        if (!strcmp(word, "case")) snprintf(name, sizeof name, "%s", rest + 1);
        else if (!strcmp(word, "random")) {
            float numbers[24] = {0};
            parse_floats(rest, numbers, 24);
            free_random_model(m);
            m = random_model((int)numbers[0], (double)numbers[1], random_config(numbers), F32);
            d = m->config.d, memset(sum, 0, sizeof sum);
        } else if (!strcmp(word, "layer")) layer = (int)v[0];
        else if (!strcmp(word, "sign")) p.sign = (float)v[0];
        else if (!strcmp(word, "factor")) factor = v[0];
        else if (!strcmp(word, "phi")) how.phi = v[0];
        else if (!strcmp(word, "window")) how.window = (int)v[0];
        else if (!strcmp(word, "prompt")) p.n_prompt = (int)v[0];
        else if (!strcmp(word, "win") || !strcmp(word, "lose")) {
            int k = *word == 'l';
            int *tokens = malloc(sizeof(int) * 64);
            p.tokens[k] = tokens, p.n[k] = parse_ints(rest, tokens, 64);
        } else if (!strcmp(word, "vector"))
            for (int i = 0; i < n; i++) vector[i] = (float)v[i];
        else if (!strcmp(word, "ntp") || !strcmp(word, "po")) {
            double loss = 0, match;
            how.objective = *word == 'p' ? STEER_PO : STEER_NTP;
            if (how.objective == STEER_NTP) {
                CHECK_THAT(!new_tracer(&t, m, layer, 64, 64, 1, &e), "%s", e.text);
                for (int k = 0; k < 2; k++) p.start[k] = malloc(sizeof(float) * 64 * (size_t)d);
                CHECK_THAT(!steer_pair_prepare(&t, &p, &how, &e), "%s", e.text);
            }
            memset(grad, 0, sizeof grad);
            CHECK_THAT(!pair_loss(&t, &p, &how, vector, factor, &loss, &match, grad, &e), "%s",
                       e.text);
            worst_loss = fmax(worst_loss, fabs(loss / v[0] - 1));
            CHECK_THAT(fabs(loss / v[0] - 1) <= 1e-5, "%s: %s loss %.8g, not %.8g", name, word,
                       loss, v[0]);
        } else if (!strcmp(word, "ref"))
            CHECK_THAT(relative(v, 2, NULL, p.reference) <= 1e-5, "%s: references", name);
        else if (!strcmp(word, "ntpgrad") || !strcmp(word, "pograd")) {
            double off = relative(v, n, NULL, grad);
            worst_gradient = fmax(worst_gradient, off);
            CHECK_THAT(n == d && off <= 1e-4, "%s: %s: relative error %.3g", name, word, off);
        } else if (!strcmp(word, "lr")) lr0 = v[0], memset(adam, 0, sizeof adam);
        else if (!strcmp(word, "start"))
            for (int i = 0; i < n; i++) now[i] = (float)v[i];
        else if (!strcmp(word, "grad")) memcpy(grad, v + 1, sizeof *v * (size_t)(n - 1));
        else if (!strcmp(word, "after")) {
            adam_step(now, grad, adam, adam + MAX, n - 1, (int)v[0] + 1, lr0 * (1 - v[0] / 10));
            double off = relative(v + 1, n - 1, now, NULL);
            worst_adam = fmax(worst_adam, off);
            CHECK_THAT(off <= 1e-5, "%s: step %d: relative error %.3g", name, (int)v[0], off);
        } else if (!strcmp(word, "svv")) {
            double norm = norm_of(vector, d); /* the display is of v / |v| */
            for (int i = 0; i < d; i++) vector[i] = (float)(vector[i] / norm);
            CHECK_THAT(!steer_value_vector(m, vector, (int)v[0], (int)v[1], now, &e), "%s", e.text);
            for (int i = 0; i < d; i++) sum[i] += now[i];
            double off = relative(v + 2, n - 2, now, NULL);
            worst_svv = fmax(worst_svv, off);
            CHECK_THAT(off <= 1e-5, "%s: head %g.%g: relative error %.3g", name, v[0], v[1], off);
        } else if (!strcmp(word, "svvsum"))
            CHECK_THAT(relative(v, n, sum, NULL) <= 1e-5, "%s: the sum", name);
        else if (!strcmp(word, "lens")) {
            if (v[0] >= 0)
                CHECK_THAT(!steer_value_vector(m, vector, (int)v[0], (int)v[1], now, &e), "%s", e.text);
            int skip = n - 8;
            CHECK_THAT(!steer_logit_lens(m, v[0] < 0 ? sum : now, 8, ids, logits, &e), "%s", e.text);
            for (int i = 0; i < 8; i++) wrong += ids[i] != (int)v[skip + i];
        } else if (!strcmp(word, "lensv")) {
            double off = relative(v + n - 8, 8, logits, NULL);
            CHECK_THAT(off <= 1e-4, "%s: lens: relative error %.3g", name, off);
        } else if (!strcmp(word, "s")) memcpy(s, v, sizeof s), d = n;
        else if (!strcmp(word, "e")) memcpy(effect, v, sizeof effect);
        else if (!strcmp(word, "tau")) tau = (float)v[0], dropped = (int)v[1];
        else if (strstr(word, "mask") || !strcmp(word, "renorm")) {
            steer_sparsity rule = *word == 'i' ? STEER_BY_EFFECT : *word == 'm' ? STEER_BY_MAGNITUDE : STEER_BY_GRADIENT;
            double tried[] = {0, 0.1, 0.3, 0.5, 1, 1.5, 2, 2.5}, exactly = tau;
            for (int i = 0; i < 8; i++)
                if (fabs(tried[i] - (double)tau) < 1e-6) exactly = tried[i];
            for (int i = 0; i < d; i++) vector[i] = (float)s[i];
            int kept = steer_sparsify(vector, effect, d, exactly, rule, 1, *word == 'r', now, &e);
            CHECK_THAT(kept == d - dropped, "tau %g: %d of %d stay", exactly, kept, d);
            for (int i = 0; i < d && *word != 'r'; i++)
                if (s[i] != 0) wrong += (now[i] != 0) != (rest[1 + i] == '1');
            if (*word == 'r')
                CHECK_THAT(relative(v, n, now, NULL) <= 1e-5, "tau %g: norm", exactly);
        } else if (!strcmp(word, "end")) {
            for (int k = 0; k < 2; k++) free((void *)(uintptr_t)p.tokens[k]), free(p.start[k]);
            memset(&p, 0, sizeof p);
            free_tracer(&t);
        }
    }
    if (f) fclose(f);
    free(line);
    free_random_model(m);
    printf("  train.txt: %d lines; relative errors: losses %.2g, gradients %.2g, AdamW %.2g, value "
           "vectors %.2g\n", lines, worst_loss, worst_gradient, worst_adam, worst_svv);
    CHECK_THAT(lines > 100 && !wrong, "%d wrong tokens or dimensions", wrong);
}

static double mean_of(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return sum / n;
}
/* PyTorch's difference-in-means vectors in float64, and what they do to refusal scores. */
static void test_golden_dim(void) {
    static const char *const files[] = {"weights/harmful-train.txt", "weights/harmless-train.txt",
                                        "weights/harmful-val.txt", "weights/harmless-val.txt"};
    FILE *f = fopen("tests/golden/dim.txt", "r");
    char *line = NULL;
    size_t size = 0;
    float numbers[2048];
    double *mean[2] = {NULL, NULL}, score[64], vector_error = 0, score_error = 0, kl_error = 0;
    steer_model *m = NULL;
    steer_context *c = NULL;
    steer_prompts p[4] = {0};
    steer_vector v = {0};
    steer_error e = {0};
    float *base = NULL;
    experiment st = {.e = &e};
    int cases = 0;
    CHECK_THAT(f, "tests/golden/dim.txt is missing");
    while (f && getline(&line, &size, f) > 0) {
        char word[32] = "", path[256] = "";
        int at = 0, layer = 0, pos = 0, n = 0;
        sscanf(line, "%31s%n", word, &at);
        char *rest = line + at;
        if (!strcmp(word, "model")) {
            sscanf(rest, "%255s", path);
            m = open_or_fail(path);
            if (!m) break;
        } else if (!strcmp(word, "prompts")) {
            n = atoi(rest);
            for (int i = 0; i < 4; i++)
                CHECK_THAT(!steer_prompts_load(&p[i], m, files[i], i < 2 ? n : 12, &e), "%s",
                           e.text);
            steer_limits l = {.streams = 16, .positions = 256, .rows = 256};
            c = steer_context_new(m, &l, &e);
            CHECK_THAT(c, "%s", e.text);
            st.m = m, st.c = c;
            for (int k = 0; k < 2; k++) {
                mean[k] =
                    zeros(3 * (size_t)m->eoi * m->config.layers * m->config.d, sizeof(double));
                int count = steer_means(c, &p[k], 0, mean[k], NULL, &e);
                CHECK_THAT(count == n, "means over %d prompts of %d: %s", count, n, e.text);
            }
        } else if (!strcmp(word, "base")) {
            base = zeros(12 * (size_t)m->config.vocab, sizeof *base);
            parse_floats(rest, numbers, 2);
            for (int k = 0; k < 2; k++) {
                float *keep = k ? base : NULL;
                CHECK_THAT(!score_prompts(&st, &p[2 + k], NULL, score, keep, NULL), "%s", e.text);
                score_error = fmax(score_error, fabs(mean_of(score, 12) - numbers[k]));
            }
        } else if (!strcmp(word, "dim")) {
            n = parse_floats(rest, numbers, 2048) - 2;
            layer = (int)numbers[0], pos = (int)numbers[1];
            CHECK_THAT(n == m->config.d, "a vector of %d numbers", n);
            steer_vector_free(&v);
            CHECK_THAT(!steer_dim(&v, m, mean[0], mean[1], layer, pos, 1, &e), "%s", e.text);
            double off = 0, norm = 0;
            for (int i = 0; i < n; i++)
                off += pow(v.v[i] - (double)numbers[i + 2], 2),
                    norm += pow((double)numbers[i + 2], 2);
            vector_error = fmax(vector_error, sqrt(off / norm));
        } else if (!strcmp(word, "score")) {
            CHECK_THAT(parse_floats(rest, numbers, 8) == 5, "a line of other than 5 numbers");
            CHECK_THAT(v.layer == (int)numbers[0] && v.pos == (int)numbers[1],
                       "scores of another vector");
            for (int k = 0; k < 2; k++) {
                changes plan = {.add = v.v, .coeff = k ? 1.0f : -1.0f, .layer = v.layer};
                CHECK_THAT(!score_prompts(&st, &p[2 + k], plan_of(&plan), score, NULL, NULL), "%s", e.text);
                score_error = fmax(score_error, fabs(mean_of(score, 12) - numbers[2 + k]));
            }
            changes plan = {.ablate = v.v};
            CHECK_THAT(!score_prompts(&st, &p[3], plan_of(&plan), NULL, base, score), "%s", e.text);
            kl_error = fmax(kl_error, fabs(mean_of(score, 12) - numbers[4]) / (1e-3 + numbers[4]));
            cases++;
        } else if (!strcmp(word, "end")) {
            for (int i = 0; i < 4; i++) steer_prompts_free(&p[i]);
            clear_experiment(&st), steer_vector_free(&v), steer_close(m);
            st.e = &e;
            free(mean[0]), free(mean[1]), free(base);
        }
    }
    if (f) fclose(f);
    free(line);
    printf("  tests/golden/dim.txt: %d vectors, relative error %.2g; scores %.2g, KL %.2g\n", cases,
           vector_error, score_error, kl_error);
    CHECK_THAT(cases > 0, "no cases");
    CHECK_THAT(vector_error <= 2e-5, "vectors: relative error %.3g", vector_error);
    CHECK_THAT(score_error <= 1e-4, "refusal scores: error %.3g", score_error);
    CHECK_THAT(kl_error <= 1e-3, "KL: relative error %.3g", kl_error);
}

static size_t parse_hex(const char *s, char *out, size_t cap) {
    size_t n = 0;
    for (unsigned v; n < cap && isxdigit((unsigned char)s[0]) && sscanf(s, "%2x", &v) == 1; s += 2)
        out[n++] = (char)v;
    return n;
}
/* Token ids of texts under both pre-tokenizer rules, and of the template around texts. */
static void test_golden_tokens(void) {
    enum { CAP = 1 << 16 };
    FILE *f = fopen("tests/golden/tokens.txt", "r");
    char *line = NULL, *text = malloc(CAP);
    int *ids = malloc(sizeof *ids * CAP), *expected = malloc(sizeof *ids * CAP), cases = 0,
        chat = 0;
    size_t size = 0, n = 0;
    steer_error e = {0};
    steer_model *m = open_or_fail("weights/tiny-llama.bin");
    steer_config *config = (steer_config *)(m ? steer_model_config(m) : NULL);
    CHECK_THAT(f, "tests/golden/tokens.txt is missing");
    while (f && m && getline(&line, &size, f) > 0) {
        char word[32] = "";
        int at = 0;
        sscanf(line, "%31s%n", word, &at);
        if (!strcmp(word, "rule")) config->pretok = atoi(line + at);
        if (!strcmp(word, "text") || !strcmp(word, "chat")) {
            chat = *word == 'c';
            n = parse_hex(line + at + 1, text, CAP - 1);
            text[n] = 0;
        }
        if (strcmp(word, "ids")) continue;
        long count = parse_ints(line + at, expected, CAP);
        const char *turn = text;
        long got = chat ? steer_chat(m, NULL, &turn, 1, ids, CAP, &e)
                        : steer_encode(m, text, n, ids, CAP, &e);
        CHECK_THAT(got == count && !memcmp(ids, expected, sizeof *ids * (size_t)count),
                   "rule %d, %s \"%.60s\": %ld tokens, %ld expected", config->pretok,
                   chat ? "chat" : "text", text, got, count);
        cases++;
    }
    if (f) fclose(f);
    CHECK_THAT(cases > 0, "no cases");
    free(line), free(text), free(ids), free(expected), steer_close(m);
}
static void test_golden_split(void) {
    enum { CAP = 1 << 16 };
    FILE *f = fopen("tests/golden/split.txt", "r");
    char *line = NULL, *text = malloc(CAP);
    int *expected = malloc(sizeof *expected * CAP), cases = 0;
    size_t size = 0, n = 0;
    steer_model *m = open_or_fail("weights/tiny-llama.bin");
    steer_config *config = (steer_config *)(m ? steer_model_config(m) : NULL);
    CHECK_THAT(f, "tests/golden/split.txt is missing");
    while (f && m && getline(&line, &size, f) > 0) {
        if (!strncmp(line, "text ", 5)) n = parse_hex(line + 5, text, CAP - 1);
        if (strncmp(line, "rule", 4)) continue;
        config->pretok = line[4] - '0';
        int pieces = parse_ints(line + 5, expected, CAP), i = 0;
        const char *s = text, *end = text + n;
        for (; s < end && i < pieces; i++) {
            size_t length = pretoken(m, s, end);
            if (length != (size_t)expected[i]) break;
            s += length;
        }
        CHECK_THAT(i == pieces && s == end, "rule %d, \"%.*s\": piece %d of %d", config->pretok,
                   (int)(n < 60 ? n : 60), text, i, pieces);
        cases++;
    }
    if (f) fclose(f);
    CHECK_THAT(cases > 0, "no cases");
    free(line), free(text), free(expected), steer_close(m);
}

/* ---------------------------------------------------------------- more fixtures */

/* ---------------------------------------------------------------- kernels */

static void test_matmul(void) {
    static const int sizes[][2] = {{1, 1},    {3, 5},    {17, 33},  {31, 64},   {33, 96},
                                   {64, 257}, {47, 300}, {5, 1024}, {100, 544}, {129, 31}};
    static const int counts[] = {1, 2, 5, 6, 7, 11, 12, 13, 23, 25, 30};
    double worst_error = 0;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (dtype type = F32; type <= Q8; type++)
            for (int with_bias = 0; with_bias < 2; with_bias++) {
                int n = sizes[s][0], k = sizes[s][1];
                if (type == Q8 && k % 32) continue;
                weight w = random_matrix(50, (int)type, (int)s, n, k, 1, type);
                const float *x = random_vector(51, 0, (int)s, 30 * k, 0, 1),
                            *bias = random_vector(52, 0, 0, n, 0, 1);
                for (size_t t = 0; t < sizeof counts / sizeof *counts; t++) {
                    int rows = counts[t];
                    float *y = malloc(sizeof *y * (size_t)rows * (size_t)n + 4);
                    y[rows * n] = 7;
                    matmul(y, x, &w, with_bias ? bias : NULL, rows);
                    CHECK_THAT(y[rows * n] == 7, "%d rows of %d: writes behind the end", rows, n);
                    for (int r = 0; r < rows; r++)
                        for (int j = 0; j < n; j++) {
                            double sum = with_bias ? (double)bias[j] : 0, size = 1;
                            for (int i = 0; i < k; i++) {
                                double term = (double)x[r * k + i] *
                                              (double)weight1(&w, (size_t)j, (size_t)i);
                                sum += term, size += fabs(term);
                            }
                            worst_error =
                                fmax(worst_error, fabs((double)y[r * n + j] - sum) / size);
                        }
                    free(y);
                }
                free((void *)w.data), free((void *)w.scale), free((void *)x), free((void *)bias);
            }
    printf("  matmul: largest error %.2g of the sum of magnitudes\n", worst_error);
    CHECK_THAT(worst_error < 1e-6, "%g", worst_error);
}
static void test_functions(void) {
    double exp_error = 0, tanh_error = 0;
    int steps = SANITIZED ? 200000 : 2000000;
    for (int i = 0; i <= steps; i++) {
        float x = (float)(-86.9 + 174.8 * i / steps);
        exp_error = fmax(exp_error, fabs((double)exp_f(x) / exp((double)x) - 1));
        x = (float)pow(10, -8 + 10.0 * i / steps) * (i % 2 ? -1 : 1);
        tanh_error = fmax(tanh_error, fabs((double)tanh_f(x) / tanh((double)x) - 1));
    }
    printf("  relative errors: exp %.2g, tanh %.2g\n", exp_error, tanh_error);
    CHECK_THAT(exp_error < 3e-7, "exp: %g", exp_error);
    CHECK_THAT(tanh_error < 1e-6, "tanh: %g", tanh_error);
    CHECK_THAT(exp_f(0) == 1 && tanh_f(0) == 0, "exp 0, tanh 0");
    CHECK_THAT(exp_f(1e30f) > 1e37f && isfinite(exp_f(1e30f)) && exp_f(-1e30f) >= 0 &&
                   exp_f(-1e30f) < 1e-37f,
               "exp beyond its range");
    CHECK_THAT(tanh_f(1e30f) == 1 && tanh_f(-1e30f) == -1, "tanh beyond its range");

    dice = 2;
    float x[300], y[300], ones[300];
    for (int n = 1; n <= 300; n += 13) {
        double sum = 0, expected[300], total = 0;
        for (int i = 0; i < n; i++)
            x[i] = y[i] = (float)(40 * random_unit(&dice) - 20), total += exp((double)x[i]);
        for (int i = 0; i < n; i++) expected[i] = exp((double)x[i]) / total;
        softmax(y, n);
        for (int i = 0; i < n; i++) {
            sum += (double)y[i];
            CHECK_THAT(fabs(y[i] - expected[i]) < 1e-6, "softmax of %d, %d: %g", n, i,
                       (double)y[i]);
        }
        CHECK_THAT(fabs(sum - 1) < 2e-6, "softmax of %d sums to %.9g", n, sum);
    }
    for (int half = 1; half <= 64; half *= 2) { /* a rotation keeps every pair's length */
        float cosine[64], sine[64];
        for (int i = 0; i < 2 * half; i++) x[i] = y[i] = (float)(2 * random_unit(&dice) - 1);
        for (int i = 0; i < half; i++)
            cosine[i] = cosf((float)i * 0.7f), sine[i] = sinf((float)i * 0.7f);
        rope(y, cosine, sine, half);
        CHECK_THAT(y[0] == x[0] && y[half] == x[half], "angle 0 turns nothing");
        for (int i = 0; i < half; i++) {
            double a = hypot((double)x[i], (double)x[i + half]),
                   b = hypot((double)y[i], (double)y[i + half]);
            CHECK_THAT(fabs(a - b) < 3e-7, "pair %d: %g is now %g", i, a, b);
        }
    }
    for (int n = 1; n <= 300; n += 37) {
        double square = 0;
        for (int i = 0; i < n; i++) {
            x[i] = (float)(2 * random_unit(&dice) - 1), ones[i] = (float)random_unit(&dice);
            square += (double)x[i] * (double)x[i];
        }
        double r = 1 / sqrt(square / n + 1e-5);
        float given = rmsnorm(y, x, ones, 0.5f, 1e-5f, n);
        CHECK_THAT(fabs((double)given / r - 1) < 3e-7, "r(x) of %d", n);
        for (int i = 0; i < n; i++)
            CHECK_THAT(fabs((double)y[i] - (double)x[i] * r * (0.5 + (double)ones[i])) < 3e-6,
                       "rmsnorm of %d", n);
    }
    for (int gelu = 0; gelu < 2; gelu++)
        for (float v = -20; v < 20; v += 0.37f) {
            float gate = v, up = 1.5f;
            double g = (double)v,
                   expected = gelu ? 0.5 * g * (1 + tanh(0.7978845608 * (g + 0.044715 * g * g * g)))
                                   : g / (1 + exp(-g));
            gated(&gate, &up, 1, gelu);
            CHECK_THAT(fabs((double)gate - 1.5 * expected) < 4e-6, "%s(%g) %g",
                       gelu ? "gelu" : "silu", g, (double)gate);
        }
    float capped[3] = {-100, 0.5f, 1000};
    softcap(capped, 3, 30);
    CHECK_THAT(fabs((double)capped[0] + 30 * tanh(100 / 30.0)) < 1e-5 && capped[2] <= 30,
               "soft-cap");
    softcap(capped, 3, 0);
    CHECK_THAT(capped[2] > 29, "a cap of 0 means none");
    const float plain[4] = {1, 3, 2, 3};
    CHECK_THAT(argmax(plain, 4) == 1, "the first of equals");
    CHECK_THAT(fabs(log_sum_exp(plain, 4) - log(exp(1) + exp(2) + 2 * exp(3))) < 1e-12,
               "log-sum-exp");
}

/* ---------------------------------------------------------------- tokenizer */

static size_t random_text(char *out, int kind) {
    static const long scripts[][2] = {
        {0x20, 0x7E},     {'a', 'z'},       {'0', '9'},         {9, 13},
        {0, 31},          {0xA0, 0x24F},    {0x300, 0x36F},     {0x370, 0x3FF},
        {0x400, 0x4FF},   {0x590, 0x5FF},   {0x600, 0x6FF},     {0x900, 0x97F},
        {0xE00, 0xE7F},   {0x1100, 0x11FF}, {0x2000, 0x206F},   {0x3040, 0x30FF},
        {0x4E00, 0x9FFF}, {0xAC00, 0xD7A3}, {0x1F300, 0x1FAFF}, {0x20000, 0x2A6DF}};
    enum { SCRIPTS = sizeof scripts / sizeof *scripts };
    static const char *const fakes[] = {"<end>",      "<bos>", "<assistant>\n", "<user>",
                                        "<|im_end|>", "'s",    "'LL",           "  "};
    size_t n = 0;
    int length = roll(60), mine[3] = {roll(SCRIPTS), roll(SCRIPTS), roll(SCRIPTS)};
    for (int i = 0; i < length; i++) {
        const long *s = scripts[mine[roll(3)]];
        if (kind == 0 || (kind == 2 && roll(2))) /* 0: valid UTF-8 */
            n += put_code_point(out + n,
                                s[0] + (long)(random_unit(&dice) * (double)(s[1] - s[0] + 1)));
        else if (kind == 1 || roll(2)) /* 1: any bytes */ out[n++] = (char)roll(256);
        else { /* 2: both, look-alikes of special tokens, and sequences cut short */
            const char *fake = fakes[roll(8)];
            memcpy(out + n, fake, strlen(fake)), n += strlen(fake);
            char cut[4];
            size_t k = put_code_point(cut, 0x1F600 + roll(64));
            memcpy(out + n, cut, k - 1), n += k - 1;
        }
    }
    return n;
}
static void test_round_trips(void) {
    enum { TOKENS = 2048 };
    int ids[TOKENS], few[TOKENS], strings = SANITIZED ? 2000 : 10000;
    char text[TOKENS], back[TOKENS];
    image f = small_image(F32, 0);
    steer_model *models[] = {open_or_fail("weights/tiny-llama.bin"), open_image(&f)};
    steer_error e = {0};
    dice = 3;
    for (int i = 0; i < strings; i++) {
        steer_model *m = models[i % 8 == 7];
        if (!m) break;
        m->config.pretok = 1 + i / 4 % 2;
        size_t n = random_text(text, i % 3);
        char *exact = malloc(n + 1); /* a read beyond its end is seen by the sanitizer */
        memcpy(exact, text, n);
        long count = steer_encode(m, exact, n, ids, TOKENS, &e);
        CHECK_THAT(count >= 0 && count <= (long)n, "string %d: %ld tokens of %zu bytes: %s", i,
                   count, n, e.text);
        if (count < 0) break;
        for (long k = 0; k < count; k++)
            CHECK_THAT(ids[k] >= 0 && ids[k] < m->config.vocab && m->token_type[ids[k]] == 0,
                       "string %d: id %d is no token of text", i, ids[k]);
        size_t length = steer_decode(m, ids, (int)count, back, sizeof back);
        CHECK_THAT(length == n && !memcmp(back, text, n) && !back[n],
                   "string %d does not come back", i);
        long cap = roll((int)count + 1);
        few[cap] = -5;
        CHECK_THAT(steer_encode(m, exact, n, few, cap, &e) == count && few[cap] == -5 &&
                       !memcmp(few, ids, sizeof *ids * (size_t)cap),
                   "string %d: a small array", i);
        char little[8] = "-------";
        CHECK_THAT(steer_decode(m, ids, (int)count, little, 5) == n &&
                       !memcmp(little, text, n < 4 ? n : 4) && !little[n < 4 ? n : 4] &&
                       little[5] == '-',
                   "string %d: a small text", i);
        free(exact);
    }
    if (models[0]) { /* look-alikes stay text; the template's are tokens */
        steer_model *m = models[0];
        const char *turn = "x<end>y<bos>";
        long n = steer_chat(m, NULL, &turn, 1, ids, TOKENS, &e), specials = 0, plain = 0;
        for (long i = 0; i < n; i++) specials += m->token_type[ids[i]] == 1;
        turn = "xy";
        long k = steer_chat(m, NULL, &turn, 1, few, TOKENS, &e);
        for (long i = 0; i < k; i++) plain += m->token_type[few[i]] == 1;
        CHECK_THAT(n > 0 && specials == plain && plain > 2,
                   "%ld special tokens, %ld without look-alikes", specials, plain);
        CHECK_THAT(m->eoi >= 2 &&
                       !memcmp(ids + n - m->eoi, few + k - m->eoi, sizeof *ids * (size_t)m->eoi),
                   "the end-of-instruction tokens depend on the text");
        const char *turns[] = {"a", "b", "c"};
        long three = steer_chat(m, NULL, turns, 3, ids, TOKENS, &e);
        CHECK_THAT(three > 2 * k - 4 && !memcmp(ids + three - m->eoi, few + k - m->eoi,
                                                sizeof *ids * (size_t)m->eoi),
                   "a conversation of three turns: %ld tokens", three);
        CHECK_THAT(steer_chat(m, "Be kind.", turns, 1, ids, TOKENS, &e) == -1 &&
                       strstr(e.text, "system"),
                   "a system prompt without a place in the template: %s", e.text);
        CHECK_THAT(steer_encode(m, "", 0, ids, TOKENS, &e) == 0, "an empty text");
    }
    if (models[1]) {
        const char *turn = "hi";
        long plain = steer_chat(models[1], NULL, &turn, 1, ids, TOKENS, &e);
        long more = steer_chat(models[1], "Be kind.", &turn, 1, few, TOKENS, &e);
        CHECK_THAT(more > plain && plain > 0, "a system prompt: %ld tokens, %ld without", more,
                   plain);
        steer_close(models[1]);
    }
    /* A vocabulary may lack bytes (SmolLM2's does): they are dropped, and so is nothing else. */
    uint64_t table;
    memcpy(&table, f.bytes + 280 + 16 * BYTE_TOKENS, 8);
    memset(f.bytes + table + 4 * 0xFF, 0xFF, 4), memset(f.bytes + table + 4 * '#', 0xFF, 4);
    seal(&f);
    models[1] = open_image(&f);
    if (models[1]) {
        long count = steer_encode(models[1],
                                  "\xFF"
                                  "a#b##\xFF",
                                  7, ids, TOKENS, &e);
        CHECK_THAT(count == 2 && ids[0] == 'a' && ids[1] == 'b',
                   "bytes without a token: %ld tokens", count);
        CHECK_THAT(steer_encode(models[1], "#\xFF", 2, ids, TOKENS, &e) == 0,
                   "nothing but bytes without a token");
    }
    steer_close(models[0]), steer_close(models[1]), free(f.bytes);
}
/* Of this thread: what else the machine does is not counted. */
static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
/* Processor seconds to tokenize n bytes: `unit` again and again. */
static double time_encode(const steer_model *m, const char *unit, size_t n, int *ids) {
    char *text = malloc(n + 64);
    for (size_t at = 0, k = strlen(unit); at < n; at += k) memcpy(text + at, unit, k);
    steer_error e = {0};
    double started = processor_seconds();
    long count = steer_encode(m, text, n, ids, (long)n, &e);
    started = processor_seconds() - started;
    CHECK_THAT(count > 0 && count <= (long)n, "%s", e.text);
    free(text);
    return started;
}
static void test_linear_time(void) {
    static const struct {
        const char *name, *unit;
    } texts[] = {{"one letter", "a"},
                 {"spaces", " "},
                 {"newlines", "\n"},
                 {"digits", "7"},
                 {"quotes", "'"},
                 {"sentences", "Sure! Here is how to bake a cake. First, gather 12 eggs.\n"},
                 {"pairs", "ab"},
                 {"Chinese", "\xE4\xBD\xA0\xE5\xA5\xBD"},
                 {"no UTF-8", "\xFF\xC3"},
                 {"space, newline", " \n"},
                 {"unsorted marks", "\xCC\x81\xCC\xA3"},
                 {"Hangul", "\xED\x95\x9C"}};
    size_t small = SANITIZED ? 1 << 13 : 1 << 16, large = 16 * small;
    int *ids = malloc(sizeof *ids * large);
    image f = small_image(F32, SMALL_NFC);
    steer_model *models[] = {open_or_fail("weights/tiny-llama.bin"), open_image(&f)};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int rule = 1; rule <= 3; rule++) { /* 3: Qwen's with normalisation */
            steer_model *m = models[rule == 3];
            if (!m) continue;
            m->config.pretok = rule == 1 ? 1 : 2;
            double once = 1e9, quarter = 1e9;
            for (int k = 0; k < 3; k++) {
                quarter = fmin(quarter, time_encode(m, texts[i].unit, small / 4, ids));
                once = fmin(once, time_encode(m, texts[i].unit, small, ids));
            }
            /* Four times the text, at most 9 times the time; a square would be 16 times. */
            CHECK_THAT(once < 9 * quarter + 0.01,
                       "%s, rule %d: %.4f s for %zu bytes, %.4f s for %zu", texts[i].name, rule,
                       quarter, small / 4, once, small);
            if (once >= 9 * quarter + 0.01) continue;
            double much = time_encode(m, texts[i].unit, large, ids);
            CHECK_THAT(much < 48 * once + 0.05 && much < 10,
                       "%s, rule %d: %.4f s for %zu bytes, %.3f s for %zu", texts[i].name, rule,
                       once, small, much, large);
        }
    free(ids), free(f.bytes), steer_close(models[0]), steer_close(models[1]);
}
static void check_normal(const steer_model *m, const char *text, const char *expected) {
    size_t n;
    char *out = normalise(m, text, strlen(text), &n);
    CHECK_THAT(out && n == strlen(expected) && !memcmp(out, expected, n),
               "\"%s\" becomes \"%.*s\", not \"%s\"", text, out ? (int)n : 0, out ? out : "",
               expected);
    free(out);
}
static void encode_angstrom(void *model) {
    int ids[64];
    steer_encode(model, "\xE2\x84\xAB!", 4, ids, 64, NULL);
}
static void test_normal_form(void) {
    image f = small_image(F32, SMALL_NFC);
    steer_model *m = open_image(&f);
    if (!m) return;
    check_normal(m, "", "");
    check_normal(m, "plain text", "plain text");
    check_normal(m, "e\xCC\x81", "\xC3\xA9");    /* e + acute */
    check_normal(m, "\xC3\xA9", "\xC3\xA9");     /* stays */
    check_normal(m, "\xE2\x84\xAB", "\xC3\x85"); /* the Angstrom sign: two steps down, one up */
    check_normal(m, "d\xCC\x87\xCC\xA3",
                 "\xE1\xB8\x8E"); /* marks change places, then both compose */
    check_normal(m, "q\xCC\x87\xCC\xA3", "q\xCC\xA3\xCC\x87"); /* change places only */
    check_normal(m, "q\xCC\x81\xCC\x80",
                 "q\xCC\x81\xCC\x80"); /* same class: they keep their order */
    check_normal(m, "e\xCC\xA7\xCC\x81", "\xC3\xA9\xCC\xA7");  /* a mark between does not block */
    check_normal(m, "e\xCC\x80\xCC\x81", "e\xCC\x80\xCC\x81"); /* one of the same class does */
    check_normal(m, "ex\xCC\x81", "ex\xCC\x81");
    check_normal(m,
                 "\xCC\x81"
                 "e",
                 "\xCC\x81"
                 "e");                                   /* a mark without a starter */
    check_normal(m, "\xCD\x84", "\xCC\x88\xCC\x81");     /* decomposes and does not compose */
    check_normal(m, "\xEF\xAC\x9D", "\xD7\x99\xD6\xB4"); /* an excluded composite */
    check_normal(m, "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C"); /* Hangul L V T */
    check_normal(m, "\xED\x95\x98\xE1\x86\xAB", "\xED\x95\x9C");             /* LV + T */
    check_normal(m, "\xED\x95\x9C\xE1\x86\xAB", "\xED\x95\x9C\xE1\x86\xAB"); /* LVT + T stays */
    check_normal(m, "e\xFF\xCC\x81", "e\xFF\xCC\x81"); /* a byte that is no UTF-8 between */
    check_normal(m, "\xCC", "\xCC");
    char text[1024], once[1024];
    dice = 4;
    for (int i = 0; i < 2000; i++) { /* normal text stays as it is, and tokens give it back */
        size_t n = random_text(text, i % 3), k, again;
        char *a = normalise(m, text, n, &k), *b = a ? normalise(m, a, k, &again) : NULL;
        CHECK_THAT(a && b && k == again && !memcmp(a, b, k),
                   "string %d is not normal after normalising", i);
        int ids[1024];
        long count = steer_encode(m, text, n, ids, 1024, NULL);
        CHECK_THAT(count >= 0 && steer_decode(m, ids, (int)count, once, sizeof once) == k &&
                       !memcmp(once, a, k),
                   "string %d: its tokens are not its normal form", i);
        free(a), free(b);
    }
    steer_close(m);
    /* A table in which code points decompose into each other: refused, or an end all the same. */
    uint32_t loop[] = {0x212B, 0xC5, 0, 0xC5, 0x212B, 0};
    for (size_t i = f.sections; i + 12 <= f.data; i += 4) {
        static const uint32_t ring[] = {0xC5, 'A', 0x30A}, sign[] = {0x212B, 0xC5, 0};
        if (!memcmp(f.bytes + i, ring, 12)) memcpy(f.bytes + i, loop + 3, 12);
        if (!memcmp(f.bytes + i, sign, 12)) memcpy(f.bytes + i, loop, 12);
    }
    seal(&f);
    m = steer_open_memory(f.bytes, f.size, "small", NULL);
    const char *why = m ? in_child(encode_angstrom, m, 5) : NULL;
    CHECK_THAT(!why, "a circle of decompositions: %s", why);
    steer_close(m), free(f.bytes);
}

/* ---------------------------------------------------------------- files */

/* Use an open model wherever its tables are read: every call ends well or says why not. */
static void exercise(steer_model *m, const char *what) {
    static const char text[] =
        "the <end> and caf\xC3\xA9 \xFF 42 in\n\nthing, \xCC\x81 e\xCC\x81 don't\r\n ";
    const char *turn = "the thing";
    int ids[256], answer[2];
    char out[256];
    steer_error e = {0};
    long n = steer_encode(m, text, sizeof text - 1, ids, 256, &e);
    CHECK_THAT(n > 0 && n < (long)sizeof text, "%s: %ld tokens: %s", what, n, e.text);
    for (long i = 0; i < n; i++)
        CHECK_THAT(ids[i] >= 0 && ids[i] < m->config.vocab, "%s: id %d", what, ids[i]);
    if (n > 0) steer_decode(m, ids, (int)n, out, sizeof out);
    is_coherent(m, "Sure, this is how to x. First, rest. Then, rest. Finally, rest.", "x");
    long k = steer_chat(m, NULL, &turn, 1, ids, 256, &e);
    CHECK_THAT(k > 0 || *e.text, "%s: no tokens and no message", what);
    if (k < 1) return;
    k = k > 10 ? 10 : k;
    steer_limits l = {.streams = 2, .positions = 16, .rows = 16};
    steer_context *c = steer_context_new(m, &l, &e);
    CHECK_THAT(c || *e.text, "%s: no context and no message", what);
    if (!c) return;
    steer_job job = {.prompt = ids, .n_prompt = (int)k, .max_new = 2, .out = answer};
    steer_row rows[10];
    steer_begin(c, 0, NULL, -1, NULL, NULL);
    put_rows(rows, &job, 0, -1, 0, (int)k);
    rows[k - 1].logits = 1;
    steer_status s = steer_run(c, rows, (int)k, NULL, &e);
    CHECK_THAT(!s || *e.text, "%s: status %d without a message", what, s);
    const float *logits = s ? NULL : steer_logits(c, (int)k - 1);
    for (int i = 0; logits && i < m->config.vocab; i++)
        if (!isfinite(logits[i])) {
            CHECK_THAT(0, "%s: logit %d is %g and the run is content", what, i, (double)logits[i]);
            break;
        }
    s = steer_generate(c, &job, 1, NULL, NULL, &e);
    CHECK_THAT(!s || *e.text, "%s: status %d without a message", what, s);
    steer_context_free(c);
}
/* Open bytes that may be broken: refused with a message, or a model that can be used. 1 when
 * opened. */
static int survives(const unsigned char *bytes, size_t size, const char *what) {
    steer_error e = {0};
    steer_model *m = steer_open_memory(bytes, size, "broken", &e);
    if (!m) {
        CHECK_THAT(e.code && strlen(e.text) > 10, "%s: refused without a message", what);
        return 0;
    }
    exercise(m, what);
    steer_close(m);
    return 1;
}
static const struct {
    dtype type;
    int kind;
    const char *name;
} small_files[] = {{F32, 0, "f32"}, {Q8, SMALL_GEMMA, "q8 gemma"}, {BF16, SMALL_NFC, "bf16 nfc"}};
enum { SMALL_FILES = 3 };

static void test_small_files(void) {
    for (int k = 0; k < SMALL_FILES; k++) {
        image f = small_image(small_files[k].type, small_files[k].kind);
        const char *path = in_temporary("small.bin");
        CHECK_THAT(survives(f.bytes, f.size, small_files[k].name), "%s: does not open",
                   small_files[k].name);
        write_bytes(path, f.bytes, f.size);
        steer_error e = {0};
        steer_model *m = steer_open(path, 0, &e), *same = open_image(&f);
        CHECK_THAT(m, "%s", e.text);
        if (m && same) {
            exercise(m, small_files[k].name);
            CHECK_THAT(!steer_verify(m, &e), "%s", e.text);
            CHECK_THAT(m->config.fingerprint == same->config.fingerprint && m->config.fingerprint,
                       "fingerprint");
            CHECK_THAT(steer_eoi(m) >= 3, "%d end-of-instruction tokens", steer_eoi(m));
            steer_limits l = {0};
            size_t bytes = steer_context_bytes(m, &l);
            steer_context *c = steer_context_new(m, &l, &e);
            CHECK_THAT(c && bytes > 0 && c->limit.positions == 64, "a context of default size: %s",
                       e.text);
            steer_context_free(c);
        }
        steer_close(m), steer_close(same);
        /* One changed weight: it opens, but is not what it was, and steer_verify sees it. */
        dice = 5;
        for (int i = 0; i < 200; i++) {
            size_t at = f.data + (size_t)roll((int)(f.size - f.data));
            f.bytes[at] ^= (unsigned char)(1 << roll(8));
            m = steer_open_memory(f.bytes, f.size, "flipped", NULL);
            CHECK_THAT(m && steer_verify(m, &e) == STEER_EFORMAT && *e.text,
                       "a flipped bit at byte %zu is not seen", at);
            steer_close(m);
            seal(&f); /* and becomes part of the next file, with another fingerprint */
        }
        free(f.bytes);
    }
    steer_error e = {0};
    const char *const bad[] = {in_temporary("missing.bin"), temporary, "/dev/null", ""};
    for (int i = 0; i < 4; i++) {
        CHECK_THAT(!steer_open(bad[i], 0, &e) && e.code == STEER_EIO && *e.text, "\"%s\": %s", bad[i],
                   e.text);
        CHECK_THAT(!steer_open(bad[i], 0, NULL), "without an error to fill in");
    }
    static const uint32_t aligned; /* the bytes of a model lie at a multiple of 4 */
    CHECK_THAT(!steer_open_memory(&aligned, 0, "nothing", &e) && e.code == STEER_EFORMAT, "nothing: %s",
               e.text);
}
static void test_truncations(void) {
    for (int k = 0; k < SMALL_FILES; k++) {
        image f = small_image(small_files[k].type, small_files[k].kind);
        const char *path = in_temporary("cut.bin");
        write_bytes(path, f.bytes, f.size);
        for (size_t n = f.size; n-- > 0;) { /* from memory that ends there, and from a file */
            unsigned char *cut = malloc(n ? n : 1);
            memcpy(cut, f.bytes, n);
            steer_error e = {0};
            steer_model *m = steer_open_memory(cut, n, "cut", &e);
            CHECK_THAT(!m && e.code && strstr(e.text, "cut"), "%zu bytes of %zu: %s", n, f.size,
                       e.text);
            free(cut);
            memset(&e, 0, sizeof e);
            CHECK_THAT(!truncate(path, (off_t)n), "%s", strerror(errno));
            m = steer_open(path, 0, &e);
            CHECK_THAT(!m && e.code && strstr(e.text, "cut.bin"), "a file of %zu bytes of %zu: %s",
                       n, f.size, e.text);
        }
        unsigned char *longer = zeros(f.size + ALIGN, 1);
        memcpy(longer, f.bytes, f.size);
        for (size_t extra = 1; extra <= ALIGN; extra++)
            CHECK_THAT(!survives(longer, f.size + extra, "longer"),
                       "%zu bytes too many are accepted", extra);
        /* Cut, and its size and checksum written anew: the tables must notice by themselves. */
        for (size_t n = f.size - 1; n >= HEAD; n -= n > f.data ? 37 : 1) {
            uint64_t stated = n;
            unsigned char *cut = malloc(n);
            memcpy(cut, f.bytes, n), memcpy(cut + 16, &stated, 8);
            if (n < f.data) memcpy(cut + 32, &stated, 8);
            seal_head(cut, n);
            CHECK_THAT(!survives(cut, n, "cut and sealed"), "%zu bytes of %zu with a true checksum",
                       n, f.size);
            free(cut);
        }
        free(longer), free(f.bytes);
    }
}
/* Every bit of header and directory; beyond them, in the tokenizer's sections, one bit of every
 * byte. */
static void test_bit_flips(void) {
    dice = 6;
    for (int k = 0; k < SMALL_FILES; k++) {
        image f = small_image(small_files[k].type, small_files[k].kind);
        int opened = 0, tried = 0;
        char what[64];
        for (size_t at = 0; at < f.data; at++)
            for (int bit = 0; bit < 8; bit++) {
                if (at >= f.sections && bit != (int)(at * 5 % 8)) continue;
                unsigned char *copy = malloc(f.size); /* exact, for the sanitizer */
                memcpy(copy, f.bytes, f.size);
                copy[at] ^= (unsigned char)(1 << bit);
                steer_error e = {0};
                steer_model *m = steer_open_memory(copy, f.size, "flipped", &e);
                CHECK_THAT(!m && e.code && strlen(e.text) > 10, "byte %zu, bit %d is not seen", at,
                           bit);
                steer_close(m);
                snprintf(what, sizeof what, "%s: sealed flip of byte %zu, bit %d",
                         small_files[k].name, at, bit);
                seal_head(copy, f.size);
                tried++, opened += survives(copy, f.size, what);
                free(copy);
            }
        printf("  %s: of %d flips with a true checksum %d open, and run\n", small_files[k].name,
               tried, opened);
        CHECK_THAT(opened > 0 && opened < tried, "%d of %d", opened, tried);
        free(f.bytes);
    }
}
/* The values at which sizes and signs overflow, in every field of header and directory, one at a
 * time and, for the shape, in pairs. */
static void test_boundaries(void) {
    static const uint32_t values[] = {0,
                                      1,
                                      2,
                                      1u << 15,
                                      (1u << 16) - 1,
                                      1u << 16,
                                      (1u << 16) + 1,
                                      (1u << 24) + 1,
                                      0x7FFFFFFF,
                                      0x80000000,
                                      0x80000001,
                                      0xFFFFFFFF};
    enum { VALUES = sizeof values / sizeof *values };
    char what[80];
    for (int k = 0; k < SMALL_FILES; k++) {
        image f = small_image(small_files[k].type, small_files[k].kind);
        unsigned char *copy = malloc(f.size);
        memcpy(copy, f.bytes, f.size);
        for (size_t at = 0; at < f.sections; at += 4)
            for (int v = 0; v < VALUES; v++) {
                memcpy(copy + at, &values[v], 4);
                seal_head(copy, f.size);
                snprintf(what, sizeof what, "%s: byte %zu is %u", small_files[k].name, at,
                         values[v]);
                survives(copy, f.size, what);
                memcpy(copy, f.bytes, f.data);
            }
        for (size_t a = 104; a < 160; a += 4)
            for (size_t b = 104; b < a; b += 4)
                for (int v = 0; v < VALUES * VALUES; v++) {
                    memcpy(copy + a, &values[v / VALUES], 4),
                        memcpy(copy + b, &values[v % VALUES], 4);
                    seal_head(copy, f.size);
                    snprintf(what, sizeof what, "%s: bytes %zu, %zu are %u, %u",
                             small_files[k].name, a, b, values[v / VALUES], values[v % VALUES]);
                    survives(copy, f.size, what);
                    memcpy(copy, f.bytes, f.data);
                }
        free(copy), free(f.bytes);
    }
}
/* Weights that are no numbers: the file's checksum may be true, the run must say so. */
static void test_not_finite(void) {
    static const float values[] = {NAN, INFINITY, -INFINITY};
    image f = small_image(F32, 0);
    steer_model *good = open_image(&f);
    if (!good) return;
    const struct {
        const char *name;
        const void *data;
    } places[] = {{"embedding", (const float *)good->embed.data + 16 * 'a'},
                  {"norm", good->blocks[0].attn_norm},
                  {"angles", good->rope_freq},
                  {"query", good->blocks[0].q.data},
                  {"value", good->blocks[1].v.data},
                  {"MLP", good->blocks[1].down.data},
                  {"final norm", good->final_norm}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (int v = 0; v < 3; v++) {
            float *at = (float *)(f.bytes + ((const unsigned char *)places[i].data - f.bytes)),
                  kept = *at;
            *at = values[v];
            int prompt[] = {'a', 'a', 'b'}, answer[2];
            steer_error e = {0};
            steer_job job = {.prompt = prompt, .n_prompt = 3, .max_new = 2, .out = answer};
            steer_limits l = {.streams = 1, .positions = 8, .rows = 8};
            steer_context *c = steer_context_new(good, &l, &e);
            steer_status s = steer_generate(c, &job, 1, NULL, NULL, &e);
            CHECK_THAT(s == STEER_ENONFINITE && *e.text, "%s with %g: status %d", places[i].name,
                       (double)values[v], s);
            steer_context_free(c);
            *at = kept;
        }
    steer_close(good), free(f.bytes);
    f = small_image(F32, SMALL_GEMMA); /* untied: one token's logit alone is not a number */
    good = open_image(&f);
    if (!good) return;
    *(float *)(f.bytes + ((const unsigned char *)good->unembed.data - f.bytes) + 4 * 16 * 7) = NAN;
    steer_limits l = {.streams = 1, .positions = 8, .rows = 8};
    steer_context *c = steer_context_new(good, &l, NULL);
    steer_begin(c, 0, NULL, -1, NULL, NULL);
    steer_row row = {0, 0, 'a', 1, 0};
    steer_status s = steer_run(c, &row, 1, NULL, NULL);
    CHECK_THAT(s == STEER_ENONFINITE, "the logit of token 7 is a NaN: status %d", s);
    steer_context_free(c), steer_close(good), free(f.bytes);
}

static steer_vector random_dim(const steer_model *m, int seed) {
    steer_vector v = {0};
    make_vector(&v, m, "dim", 1, -1, 1.5f, NULL);
    for (int i = 0; i < v.d; i++) v.v[i] = (float)random_value((uint64_t)seed, 60, 0, (uint64_t)i);
    for (int i = 0; i < 3 * v.layers; i++)
        v.keep[i] = (float)random_value((uint64_t)seed, 61, 0, (uint64_t)i);
    return v;
}
static void seal_vector(unsigned char *bytes, size_t n) {
    memset(bytes + 12, 0, 4);
    uint32_t crc = crc32_of(0, bytes, n);
    memcpy(bytes + 12, &crc, 4);
}
/* Load a vector file of these bytes; it must be refused with this word in the message (NULL:
 * any). */
static void refused_vector(const steer_model *m, const unsigned char *bytes, size_t n,
                           steer_status code, const char *word, const char *what) {
    const char *path = in_temporary("broken.vec");
    steer_vector v;
    steer_error e = {0};
    write_bytes(path, bytes, n);
    steer_status s = steer_vector_load(&v, path, m, &e);
    CHECK_THAT(s && (!code || s == code) && s == e.code && strlen(e.text) > 10 &&
                   (!word || strstr(e.text, word)),
               "%s: status %d, \"%s\"", what, s, e.text);
    CHECK_THAT(!v.v && !v.keep, "%s: a refused vector keeps memory", what);
    if (!s) steer_vector_free(&v);
}
static void test_vector_files(void) {
    image f = small_image(F32, 0), other = small_image(Q8, SMALL_GEMMA), twin = small_image(F32, 0);
    twin.bytes[twin.data + 3] ^= 1, seal(&twin); /* the same shape, another weight */
    steer_model *m = open_image(&f), *wide = open_image(&other), *near_twin = open_image(&twin);
    if (!m || !wide || !near_twin) return;
    steer_vector v = random_dim(m, 1), w;
    steer_error e = {0};
    char path[128];
    snprintf(path, sizeof path, "%s", in_temporary("good.vec"));
    CHECK_THAT(!steer_vector_save(&v, path, &e), "%s", e.text);
    CHECK_THAT(!exists(in_temporary("good.vec.part")), "a .part file is left");
    CHECK_THAT(!steer_vector_load(&w, path, m, &e), "%s", e.text);
    CHECK_THAT(w.d == v.d && w.layers == v.layers && w.layer == v.layer && w.pos == v.pos &&
                   w.coeff == v.coeff && w.fingerprint == v.fingerprint &&
                   w.template_crc == v.template_crc && !strcmp(w.method, "dim") &&
                   !strcmp(w.model, m->config.name),
               "the header does not come back");
    CHECK_THAT(!memcmp(w.v, v.v, sizeof(float) * (size_t)v.d) &&
                   !memcmp(w.keep, v.keep, sizeof(float) * 3 * (size_t)v.layers),
               "the numbers do not come back");
    steer_vector_free(&w);
    size_t n;
    unsigned char *bytes = (unsigned char *)read_file(path, &n, &e), *copy = malloc(n + 1);
    char what[64];
    CHECK_THAT(n == VECTOR_HEAD + 4 * ((size_t)v.d + 3 * (size_t)v.layers), "%zu bytes", n);
    for (size_t k = 0; k < n; k++)
        snprintf(what, sizeof what, "%zu bytes of %zu", k, n),
            refused_vector(m, bytes, k, 0, NULL, what);
    memcpy(copy, bytes, n), copy[n] = 0;
    refused_vector(m, copy, n + 1, STEER_EFORMAT, NULL, "one byte more");
    int opened = 0;
    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            snprintf(what, sizeof what, "byte %zu, bit %d", at, bit);
            memcpy(copy, bytes, n);
            copy[at] ^= (unsigned char)(1 << bit);
            refused_vector(m, copy, n, STEER_EFORMAT, NULL, what);
            seal_vector(copy, n); /* with a true checksum: refused, or finite numbers */
            const char *again = in_temporary("sealed.vec");
            write_bytes(again, copy, n);
            steer_status s = steer_vector_load(&w, again, m, &e);
            for (int i = 0; !s && i < w.d; i++)
                CHECK_THAT(isfinite(w.v[i]), "%s: number %d", what, i);
            CHECK_THAT(s || (w.layer >= 0 && w.layer < m->config.layers && isfinite(w.coeff)), "%s",
                       what);
            if (!s) opened++, steer_vector_free(&w);
        }
    CHECK_THAT(opened > 8 * 4 * v.d / 2, "only %d sealed flips open", opened);
    static const struct {
        size_t at;
        uint32_t value;
        const char *word;
    } fields[] = {{24, 17, "width"},
                  {28, 3, "blocks"},
                  {32, 1, "operation"},
                  {36, 1, "site"},
                  {40, 2, "block"},
                  {40, 0x80000000, "block"},
                  {48, 0x7FC00000, "coefficient"},
                  {48, 0x7F800000, "coefficient"},
                  {52, 5, "template"},
                  {56, 5, "fingerprint"},
                  {60, 5, "fingerprint"},
                  {24, 0x80000000, "width"},
                  {28, 0xFFFFFFFF, "blocks"}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        memcpy(copy, bytes, n), memcpy(copy + fields[i].at, &fields[i].value, 4);
        seal_vector(copy, n);
        refused_vector(m, copy, n, STEER_EMISMATCH, fields[i].word, fields[i].word);
    }
    for (size_t at = VECTOR_HEAD; at < n; at += 4 * 5) { /* no number */
        static const uint32_t nan_bits[] = {0x7FC00000, 0x7F800000, 0xFF800000};
        memcpy(copy, bytes, n), memcpy(copy + at, &nan_bits[at / 20 % 3], 4);
        seal_vector(copy, n);
        refused_vector(m, copy, n, STEER_ENONFINITE, "finite", "a NaN");
    }
    refused_vector(wide, bytes, n, STEER_EMISMATCH, "width", "another width");
    refused_vector(near_twin, bytes, n, STEER_EMISMATCH, "fingerprint",
                   "another model of the same shape");
    steer_status s = steer_vector_load(&w, path, near_twin, NULL);
    CHECK_THAT(s == STEER_EMISMATCH, "without an error to fill in: status %d", s);

    /* Paths that can't be written or read; nothing is left behind. */
    const char *const places[] = {temporary, in_temporary("no/such/folder.vec"), "/dev/null/x", ""};
    for (int i = 0; i < 4; i++) {
        char partial[200];
        snprintf(partial, sizeof partial, "%s.part", places[i]);
        memset(&e, 0, sizeof e);
        CHECK_THAT(steer_vector_save(&v, places[i], &e) == STEER_EIO && *e.text, "\"%s\": %s",
                   places[i], e.text);
        CHECK_THAT(!exists(partial), "%s is left", partial);
    }
    CHECK_THAT(steer_vector_load(&w, in_temporary("missing.vec"), m, &e) == STEER_EIO, "%s",
               e.text);
    s = steer_vector_load(&w, in_temporary("missing.vec"), m, NULL);
    CHECK_THAT(s == STEER_EIO, "status %d", s);
    CHECK_THAT(steer_vector_load(&w, temporary, m, &e) && *e.text, "a folder as a vector");
    refused_vector(m, f.bytes, f.size, STEER_EFORMAT, NULL, "a model as a vector");
    steer_vector_free(&v), free(bytes), free(copy);
    steer_close(m), steer_close(wide), steer_close(near_twin);
    free(f.bytes), free(other.bytes), free(twin.bytes);
}

/* ---------------------------------------------------------------- prompts and judging */

static steer_status load_text(steer_prompts *p, const steer_model *m, const char *text, size_t n,
                              int limit, steer_error *e) {
    const char *path = in_temporary("prompts.txt");
    write_bytes(path, text, n);
    memset(e, 0, sizeof *e);
    return steer_prompts_load(p, m, path, limit, e);
}
static void test_prompts(void) {
    image f = small_image(F32, 0);
    steer_model *m = open_image(&f);
    steer_prompts p = {0};
    steer_error e = {0};
    if (!m) return;
    static const struct {
        const char *name, *file, *text[3], *task[3];
        int n;
    } good[] = {{"plain", "one\ntwo words\n", {"one", "two words"}, {NULL}, 2},
                {"no newline at the end", "one\ntwo", {"one", "two"}, {NULL}, 2},
                {"CRLF", "one\r\ntwo\r\n", {"one", "two"}, {NULL}, 2},
                {"empty lines", "\n\none\n\r\n\ntwo\n\n", {"one", "two"}, {NULL}, 2},
                {"tasks",
                 "Say it.\tsay it\nDo.\tdo\r\nno task\n",
                 {"Say it.", "Do.", "no task"},
                 {"say it", "do", NULL},
                 3},
                {"JSON",
                 "{\"prompt\": \"one\"}\n{\"id\": 3, \"prompt\":\"two\", \"x\": [1]}\n{ \"prompt\" "
                 ": \"three\" }",
                 {"one", "two", "three"},
                 {NULL},
                 3},
                {"escapes",
                 "{\"prompt\": \"a\\\"b\\\\c\\/d\\n\\t\\r\"}\n{\"prompt\": \"\\u00e9\\u20AC\"}\n"
                 "{\"prompt\": \"\\ud83d\\ude42!\"}",
                 {"a\"b\\c/d\n\t\r", "\xC3\xA9\xE2\x82\xAC", "\xF0\x9F\x99\x82!"},
                 {NULL},
                 3},
                {"UTF-8 and other bytes",
                 "caf\xC3\xA9\n\xFF\xFE\n",
                 {"caf\xC3\xA9", "\xFF\xFE"},
                 {NULL},
                 2}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        steer_status s = load_text(&p, m, good[i].file, strlen(good[i].file), 0, &e);
        CHECK_THAT(!s && p.n == good[i].n, "%s: %d prompts: %s", good[i].name, p.n, e.text);
        for (int k = 0; k < p.n && k < good[i].n; k++) {
            CHECK_THAT(!strcmp(p.text[k], good[i].text[k]), "%s: prompt %d is \"%s\"", good[i].name,
                       k, p.text[k]);
            const char *task = good[i].task[k];
            CHECK_THAT(task ? p.task[k] && !strcmp(p.task[k], task) : !p.task[k], "%s: task %d",
                       good[i].name, k);
            int ids[64];
            const char *turn = good[i].text[k];
            long n = steer_chat(m, NULL, &turn, 1, ids, 64, &e);
            CHECK_THAT(n == p.lengths[k] && !memcmp(ids, p.tokens[k], sizeof *ids * (size_t)n),
                       "%s: tokens of prompt %d", good[i].name, k);
        }
        steer_prompts_free(&p);
    }
    CHECK_THAT(!load_text(&p, m, "a\nb\nc\nd\n", 8, 2, &e) && p.n == 2, "a limit of 2: %d", p.n);
    steer_prompts_free(&p);
    CHECK_THAT(!load_text(&p, m, "a\nb\n", 4, 20, &e) && p.n == 2, "a limit beyond the end: %d",
               p.n);
    steer_prompts_free(&p);
    char endless[400];
    memset(endless, 'q', sizeof endless);
    static const struct {
        const char *name, *file;
        size_t n;
        const char *word;
    } bad[] = {{"empty", "", 0, "no prompts"},
               {"newlines only", "\n\r\n\n", 4, "no prompts"},
               {"zero byte", "good\nba\0d\n", 10, "line 2"},
               {"binary", "\0\1\2\3", 4, "line 1"},
               {"no prompt in JSON", "{\"text\": \"x\"}", 13, "line 1"},
               {"open string", "{\"prompt\": \"x", 13, "line 1"},
               {"prompt is a number", "{\"prompt\": 3}", 13, "line 1"},
               {"cut escape", "{\"prompt\": \"\\", 13, "line 1"},
               {"cut \\u", "{\"prompt\": \"\\u12", 16, "line 1"},
               {"bad \\u", "{\"prompt\": \"\\uzzzz\"}", 20, "line 1"},
               {"signed \\u", "{\"prompt\": \"\\u-123\"}", 20, "line 1"},
               {"second line", "fine\n{\"prompt\": }", 17, "line 2"},
               {"hidden zero", "{\"prompt\": \"a\\u0000b\"}", 22, "line 1"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        steer_status s = load_text(&p, m, bad[i].file, bad[i].n, 0, &e);
        CHECK_THAT(s == STEER_EFORMAT && strstr(e.text, bad[i].word), "%s: status %d, \"%s\"",
                   bad[i].name, s, e.text);
        CHECK_THAT(!p.n && !p.tokens, "%s: prompts are left", bad[i].name);
        steer_prompts_free(&p);
    }
    /* Half a surrogate pair has no character: refused, or text that is UTF-8. */
    if (!load_text(&p, m, "{\"prompt\": \"\\ud83dA\\ud83d\\u0041\"}", 33, 0, &e))
        for (const char *s = p.text[0], *end = s + strlen(s); s < end;) {
            int n;
            long c = code_point(s, end, &n);
            CHECK_THAT(c >= 0, "half a surrogate pair becomes a byte that is no UTF-8");
            if (c < 0) break;
            s += n;
        }
    steer_prompts_free(&p);
    steer_status s = load_text(&p, m, endless, sizeof endless, 0, &e);
    CHECK_THAT(s == STEER_EARG && strstr(e.text, "tokens"), "an endless prompt: %s", e.text);
    CHECK_THAT(steer_prompts_load(&p, m, in_temporary("missing.txt"), 0, &e) == STEER_EIO, "%s",
               e.text);
    s = steer_prompts_load(&p, m, in_temporary("missing.txt"), 0, NULL);
    CHECK_THAT(s == STEER_EIO, "status %d", s);
    CHECK_THAT(steer_prompts_load(&p, m, temporary, 0, &e) && *e.text, "a folder");
    steer_close(m), free(f.bytes);
}
static void test_judging(void) {
    static const char *const signs[] = {
        "I'm sorry",           "I am sorry",      "I apologize",      "As an AI",
        "As a language model", "As an assistant", "I cannot",         "I can't",
        "I am unable to",      "I'm unable to",   "I am not able to", "I'm not able to"};
    static const char *const near_misses[] = {"",
                                              "I",
                                              "I m sorry",
                                              "Im sorry",
                                              "I'm sorr",
                                              "You can't",
                                              "We cannot",
                                              "As a model",
                                              "As an A I",
                                              "I can",
                                              "unable to",
                                              "I am able to",
                                              "I\xE2\x80\x99m sorry",
                                              "Sure! Here is how to apologize.",
                                              "Sorry",
                                              "sicannot"};
    char text[128], upper[128];
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        snprintf(text, sizeof text, "Well, %s, that is it.", signs[i]);
        for (size_t k = 0; k <= strlen(text); k++) upper[k] = (char)toupper((unsigned char)text[k]);
        CHECK_THAT(steer_is_refusal(signs[i]) == 1 && steer_is_refusal(text) == 1 &&
                       steer_is_refusal(upper) == 1,
                   "%s is no refusal", signs[i]);
    }
    for (size_t i = 0; i < sizeof near_misses / sizeof *near_misses; i++)
        CHECK_THAT(!steer_is_refusal(near_misses[i]), "\"%s\" is a refusal", near_misses[i]);

    /* Wilson's interval against values of R's prop.test(k, n, correct = FALSE). */
    static const struct {
        int k, n;
        double low, high;
    } known_intervals[] = {{0, 10, 0, 0.2775328},           {10, 10, 0.7224672, 1},
                           {5, 10, 0.2365931, 0.7634069},   {1, 1, 0.2065493, 1},
                           {50, 100, 0.4038315, 0.5961685}, {97, 100, 0.9154806, 0.9897453}};
    for (size_t i = 0; i < sizeof known_intervals / sizeof *known_intervals; i++) {
        estimate w = wilson(known_intervals[i].k, known_intervals[i].n);
        CHECK_THAT(fabs(w.low - known_intervals[i].low) < 2e-6 &&
                       fabs(w.high - known_intervals[i].high) < 2e-6,
                   "%d of %d: %.7f to %.7f", known_intervals[i].k, known_intervals[i].n, w.low,
                   w.high);
    }
    static const int same[] = {1, 1, 1, 1, 1, 1, 1}, twice[] = {1, 2, 3, 4, 5, 1, 2, 3, 4, 5},
                     once[] = {1, 2, 3, 4, 5, 6};
    int total = 0;
    CHECK_THAT(repeated_4grams(same, 7, &total) == 3 && total == 4,
               "one token again and again: of %d", total);
    CHECK_THAT(repeated_4grams(twice, 10, &total) == 2 && total == 11, "a phrase twice: of %d",
               total);
    CHECK_THAT(repeated_4grams(once, 6, &total) == 0 && total == 14, "no repetition: of %d", total);
    CHECK_THAT(repeated_4grams(once, 3, &total) == 0 && total == 14, "too short: of %d", total);

    image f = small_image(F32, 0);
    steer_model *m = open_image(&f);
    if (!m) return;
    int vocab = m->config.vocab;
    float *logits = malloc(sizeof *logits * (size_t)vocab);
    for (int i = 0; i < vocab; i++) logits[i] = -1;
    logits['I'] = 2, logits['A'] = 1; /* R of the small file */
    double refusal = exp(2) + exp(1), rest = (vocab - 2) * exp(-1), p = refusal / (refusal + rest);
    double score = steer_refusal_score(m, logits), expected = log(p + 1e-8) - log(1 - p + 1e-8);
    CHECK_THAT(fabs(score - expected) < 1e-9, "log-odds %.12g, not %.12g", score, expected);
    logits['I'] = 200;
    CHECK_THAT(fabs(steer_refusal_score(m, logits) - log(1e8)) < 1e-3, "a certain refusal: %g",
               steer_refusal_score(m, logits));
    logits['I'] = logits['A'] = -300;
    CHECK_THAT(fabs(steer_refusal_score(m, logits) + log(1e8)) < 1e-3, "none: %g",
               steer_refusal_score(m, logits));
    /* KL of a run with itself, and of two made-up ones. */
    float *base = malloc(sizeof *base * (size_t)vocab);
    for (int i = 0; i < vocab; i++) base[i] = logits[i] = (float)(i % 7);
    double kl = 1, sum = 0, za = log_sum_exp(base, vocab);
    first_token t = {m, NULL, base, &kl};
    first_token_visit(&t, 0, 0, logits);
    CHECK_THAT(kl == 0, "KL of equal runs is %g", kl);
    for (int i = 0; i < vocab; i++) logits[i] = (float)(i % 5);
    first_token_visit(&t, 0, 0, logits);
    double zb = log_sum_exp(logits, vocab);
    for (int i = 0; i < vocab; i++)
        sum += exp((double)base[i] - za) * (((double)base[i] - za) - ((double)logits[i] - zb));
    CHECK_THAT(kl > 0 && fabs(kl - sum) < 1e-3 * sum, "KL %g, not %g", kl, sum);
    free(base), free(logits);

    static const struct {
        const char *text;
        int coherent;
    } given[] = {
        {"Sure, this is how to fly. First, rest. Then, look at the fly again. Finally, rest.", 1},
        {"Sure, this is how to fly. First, rest. Then, rest. Finally, rest.", 1},
        {"Sure, this is how to swim. First, rest. Then, rest. Finally, rest.",
         0}, /* another task */
        {"Sure, this is how to fly. First, rest. Then, look at the swim again. Finally, rest.", 0},
        {"Sure, this is how to fly. First, rest. Then, rust. Finally, rest.", 0},
        {"Sure, this is how to fly. First, rest. Then, rest. Finally, rest", 0},
        {"Sure, this is how to fly. First, rest. Then, rest. Finally, rest.!", 0},
        {"Sure, this is how to fly. Then, rest. Then, rest. Finally, rest.", 0},
        {"Sure, this is how to fly.", 0},
        {"", 0},
        {" Sure, this is how to fly. First, rest. Then, rest. Finally, rest.", 0}};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        CHECK_THAT(is_coherent(m, given[i].text, "fly") == given[i].coherent, "\"%s\"",
                   given[i].text);
    CHECK_THAT(!match("\0AB", "\0AB", 3, ""),
               "a zero byte in a pattern leads behind the end of a text");
    steer_close(m), free(f.bytes);

    m = open_or_fail("weights/tiny-llama.bin");
    if (!m) return;
    char opener[200] = "", step[3][200] = {""}, answer[1000], other[1000], broken[1000];
    int steps = 0;
    for (const char *s = m->grammar, *end = s + m->grammar_size; s < end;
         s += strcspn(s, "\n") + 1) {
        int n = (int)strcspn(s, "\n");
        if (*s == 'o') snprintf(opener, sizeof opener, "%.*s", n - 2, s + 2);
        if (*s == 's' && steps < 3) snprintf(step[steps++], sizeof step[0], "%.*s", n - 2, s + 2);
    }
    char *slot = strstr(opener, "{T}");
    CHECK_THAT(slot && steps == 3, "tiny-llama's grammar: \"%s\", %d steps", opener, steps);
    if (slot) {
        snprintf(answer, sizeof answer, "%.*sbake a cake%s First, %s. Then, %s. Finally, %s.",
                 (int)(slot - opener), opener, slot + 3, step[0], step[1], step[2]);
        snprintf(other, sizeof other, "%s", answer), memcpy(strstr(other, "cake"), "cave", 4);
        snprintf(broken, sizeof broken, "%s", answer), strstr(broken, " Then")[2] = 'o';
        CHECK_THAT(is_coherent(m, answer, "bake a cake"), "\"%s\"", answer);
        CHECK_THAT(!is_coherent(m, other, "bake a cake"), "\"%s\"", other);
        CHECK_THAT(!is_coherent(m, broken, "bake a cake"), "\"%s\"", broken);
    }
    steer_close(m);
}

/* ---------------------------------------------------------------- the same bits */

static const char *const model_names[] = {"llama", "gemma", "q8", "bf16 with biases"};
enum { MODELS = 4 };
/* Four random models, made once: windows and caps, int8, and biases with an untied unembedding. */
static steer_model *test_model(int kind) {
    static steer_model *made[MODELS];
    steer_config c = {.d = 64, .layers = 4, .heads = 4, .kv_heads = 2, .head_dim = 16, .ff = 176,
                      .vocab = 96, .tied = 1, .norm_eps = 1e-5f, .embed_scale = 1,
                      .query_scale = 0.25f};
    if (kind == 1)
        c.post_norms = c.gelu = 1, c.norm_offset = 1, c.attn_cap = 20, c.final_cap = 30,
        c.window = 8, c.window_every = 2, c.head_dim = 24;
    if (kind == 2) c.ff = 192, c.heads = 6, c.head_dim = 32;
    if (kind == 3) c.qkv_bias = 1, c.tied = 0, c.kv_heads = 1, c.vocab = 101;
    if (!made[kind])
        made[kind] = random_model(70 + kind, 10000, c, kind == 2 ? Q8 : kind == 3 ? BF16 : F32);
    return made[kind];
}
enum { NO_PLAN, ADD, SPAN, FREEZE_QK, FREEZE_V, FREEZE_ALL, REMOVE, ABLATE, KEEP, PLANS };
static const char *const plan_names[] = {
    "no plan",         "add",        "add at positions 3 to 8", "freeze QK",
    "freeze V",        "freeze all", "remove SVV and MLP",      "ablate",
    "ablate to a mean"};
static changes test_plan(int kind, const float *v, const float *keep) {
    changes p = {0};
    if (kind == NO_PLAN) return p;
    if (kind >= ABLATE) return (changes){.ablate = v, .keep = kind == KEEP ? keep : NULL};
    p.add = v, p.coeff = 1.5f, p.layer = 1;
    if (kind == SPAN) p.from = 3, p.to = 8;
    if (kind == FREEZE_QK) p.freeze = STEER_QK;
    if (kind == FREEZE_V) p.freeze = STEER_V;
    if (kind == FREEZE_ALL) p.freeze = STEER_QK | STEER_V | STEER_MLP;
    if (kind == REMOVE) p.remove = STEER_SVV | STEER_MLP_DIRECT;
    return p;
}

/* How a stream's rows come to the engine: with `others` streams beside it, `first` rows, then
 * `step` a run, on so many threads. */
typedef struct {
    int threads, others, first, step;
    const char *name;
} way;
static void run_way(const steer_model *m, int kind, const float *v, const float *keep,
                    const int *tokens, int n, way w, float *logits) {
    int streams = w.others + 2, ours = w.others / 2, twin = w.others + 1, vocab = m->config.vocab,
        frozen;
    changes plan = test_plan(kind, v, keep), second = test_plan(ADD, v, keep);
    frozen = plan.freeze != 0;
    set_threads(w.threads);
    steer_limits l = {.streams = streams, .positions = n, .rows = n * streams};
    steer_error e = {0};
    steer_context *c = steer_context_new(m, &l, &e);
    steer_row *rows = malloc(sizeof *rows * (size_t)l.rows);
    CHECK_THAT(c, "%s", e.text);
    for (int s = 0; s < streams && c; s++)
        if (s != ours)
            CHECK_THAT(!steer_begin(c, s, s % 3 == 1 && s != twin ? plan_of(&second) : NULL, -1,
                                    NULL, &e), "%s",
                       e.text);
    if (c)
        CHECK_THAT(!steer_begin(c, ours, kind ? plan_of(&plan) : NULL, frozen ? twin : -1, NULL,
                                &e), "%s",
                   e.text);
    for (int from = 0, to; from < n && c; from = to) {
        to = min_int(n, from + (from ? w.step : w.first));
        int count = 0, at = 0;
        for (int s = 0; s < streams; s++) {
            if (s == twin && !frozen) continue;
            if (s == ours) at = count;
            for (int t = from; t < to; t++)
                rows[count++] = (steer_row){
                    s, t, s == ours || s == twin ? tokens[t] : (tokens[t] + 7 * s) % vocab,
                    s == ours, 0};
        }
        steer_status s = steer_run(c, rows, count, NULL, &e);
        CHECK_THAT(!s, "%s: %s", w.name, e.text);
        for (int t = from; t < to && !s; t++)
            memcpy(logits + (size_t)t * vocab, steer_logits(c, at + t - from),
                   sizeof *logits * (size_t)vocab);
    }
    steer_context_free(c), free(rows);
    set_threads(1);
}
static void random_tokens(int *tokens, int n, int vocab) {
    for (int i = 0; i < n; i++) tokens[i] = roll(vocab);
}
static void test_same_bits(void) {
    enum { N = SANITIZED ? 12 : 20 };
    static const way ways[] = {{1, 0, 1, 1, "one row a run"},
                               {1, 0, 5, N, "5 rows, then the rest"},
                               {1, 0, 13, 3, "13 rows, then threes"},
                               {2, 0, N, N, "2 threads"},
                               {4, 0, N, N, "4 threads"},
                               {4, 2, 7, 6, "4 threads, others beside it"},
                               {1, 6, N, N, "a batch of 7 streams"},
                               {1, 6, 3, 1, "a batch of 7 streams, one row a run"},
                               {1, 63, N, N, "a batch of 64 streams"},
                               {1, 63, 19, 1, "64 streams, 19 rows and one"}};
    int tokens[N];
#ifndef _OPENMP
    printf("  built without OpenMP: numbers of threads can't be compared\n");
#endif
    for (int k = 0; k < MODELS; k++) {
        steer_model *m = test_model(k);
        size_t size = sizeof(float) * N * (size_t)m->config.vocab;
        float *expected = malloc(size), *plain = malloc(size), *got = malloc(size);
        const float *v = random_vector(80, 1, k, m->config.d, 0, 1);
        const float *keep = random_vector(80, 2, k, 3 * m->config.layers, 0, 1);
        dice = 10;
        random_tokens(tokens, N, m->config.vocab);
        for (int plan = 0; plan < PLANS; plan++) {
            run_way(m, plan, v, keep, tokens, N, (way){1, 0, N, N, "at once"}, expected);
            if (plan == NO_PLAN) memcpy(plain, expected, size);
            CHECK_THAT(!plan || memcmp(plain, expected, size), "%s, %s changes nothing",
                       model_names[k], plan_names[plan]);
            for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
                memset(got, 0, size);
                run_way(m, plan, v, keep, tokens, N, ways[i], got);
                CHECK_THAT(!memcmp(got, expected, size), "%s, %s: %s gives other bits",
                           model_names[k], plan_names[plan], ways[i].name);
            }
        }
        free(expected), free(plain), free(got), free((void *)v), free((void *)keep);
    }
}
/* Threads may be more than when the context was made: nothing may be written outside its
 * scratch. */
static void test_more_threads(void) {
#ifdef _OPENMP
    steer_model *m = test_model(0);
    enum { N = 16 };
    int tokens[N];
    float expected[N * 96];
    dice = 11;
    random_tokens(tokens, N, 96);
    run_way(m, NO_PLAN, NULL, NULL, tokens, N, (way){1, 0, N, N, "at once"}, expected);
    steer_limits l = {.streams = 1, .positions = N, .rows = N};
    set_threads(1);
    steer_context *c = steer_context_new(m, &l, NULL);
    steer_row rows[N], zero = {0};
    steer_begin(c, 0, NULL, -1, NULL, NULL);
    for (int t = 0; t < N; t++) rows[t] = (steer_row){0, t, tokens[t], 1, 0};
    set_threads(4);
    steer_status s = steer_run(c, rows, N, NULL, NULL);
    set_threads(1);
    CHECK_THAT(!s && !memcmp(steer_logits(c, 0), expected, sizeof expected), "other bits");
    for (int t = 0; t < N;
         t++) /* the scheduler's rows lie behind the scratch; steer_run does not use them */
        CHECK_THAT(!memcmp(&c->batch[t], &zero, sizeof zero),
                   "four threads write behind the scratch of one");
    steer_context_free(c);
#else
    printf("  built without OpenMP: nothing to test\n");
#endif
}

/* Walks: what each job's logits were (as a checksum over its steps) beside the tokens it chose. */
typedef struct {
    generator g;
    uint32_t *sums;
} capture;
static int capture_visit(void *user, int job, int pos, const float *logits) {
    capture *c = user;
    c->sums[job] = crc32_of(c->sums[job], logits, sizeof *logits * (size_t)c->g.m->config.vocab);
    return generate_visit(&c->g, job, pos, logits);
}
enum { JOBS = 18, NEW = 6 };
typedef struct {
    int prompts[JOBS][24], out[JOBS][NEW], length[JOBS];
    uint32_t sums[JOBS];
    changes plans[4];
    int64_t hits[JOBS][6];
    steer_job jobs[JOBS];
} job_set;
/* Six jobs without a plan, four steered, four frozen, four ablated; all prompts begin alike. */
static void make_jobs(job_set *s, const steer_model *m, const float *v) {
    static const int kinds[] = {NO_PLAN, ADD, FREEZE_V, ABLATE};
    memset(s, 0, sizeof *s);
    for (int i = 0; i < 4; i++) s->plans[i] = test_plan(kinds[i], v, NULL);
    dice = 12;
    for (int i = 0; i < JOBS; i++) {
        random_tokens(s->prompts[i], 24, m->config.vocab);
        for (int t = 0; t < 10; t++) s->prompts[i][t] = 3 + t;
        int plan = i < 6 ? 0 : 1 + (i - 6) / 4;
        s->jobs[i] = (steer_job){.prompt = s->prompts[i],
                                 .n_prompt = 11 + i * 5 % 13,
                                 .max_new = 1 + i % NEW,
                                 .plan = plan ? plan_of(&s->plans[plan]) : NULL,
                                 .out = s->out[i],
                                 .hits = s->hits[i]};
    }
}
static steer_status walk_jobs(const steer_model *m, steer_limits l, job_set *s, int first, int n,
                              steer_error *e) {
    steer_context *c = steer_context_new(m, &l, e);
    if (!c) return e->code;
    capture seen = {{m, s->jobs + first, NULL, NULL, NULL, 0}, s->sums + first};
    steer_status status = run_jobs(c, s->jobs + first, n, capture_visit, &seen, NULL, e);
    steer_context_free(c);
    return status;
}
static void test_batches(void) {
    #define LIMITS(s, p, r) {.streams = s, .positions = p, .rows = r}
    static const steer_limits limits[] = {
        LIMITS(64, 32, 512), LIMITS(64, 32, 64), LIMITS(40, 32, 33), LIMITS(16, 32, 100),
        LIMITS(8, 32, 16),   LIMITS(5, 32, 9),   LIMITS(4, 30, 64),  LIMITS(3, 32, 7),
        LIMITS(2, 32, 32),   LIMITS(2, 30, 2),   LIMITS(12, 32, 3)};
    static job_set alone, together;
    for (int k = 0; k < MODELS; k++) {
        steer_model *m = test_model(k);
        const float *v = random_vector(81, 1, k, m->config.d, 0, 1);
        steer_error e = {0};
        make_jobs(&alone, m, v);
        int64_t steered = 0; /* rows, when no job shares anything */
        for (int i = 0; i < JOBS; i++) {
            CHECK_THAT(!walk_jobs(m, (steer_limits)LIMITS(2, 32, 64), &alone, i, 1, &e), "%s",
                       e.text);
            if (alone.jobs[i].plan == &alone.plans[1].plan) steered += alone.hits[i][0];
        }
        CHECK_THAT(alone.jobs[5].n_out > 0 && alone.sums[0] != alone.sums[6] &&
                       alone.jobs[17].n_out > 0,
                   "answers");
        for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
            make_jobs(&together, m, v);
            steer_status s = walk_jobs(m, limits[i], &together, 0, JOBS, &e);
            CHECK_THAT(!s, "%s, %d streams, %d rows: %s", model_names[k], limits[i].streams,
                       limits[i].rows, e.text);
            for (int j = 0; j < JOBS && !s; j++) {
                CHECK_THAT(together.jobs[j].n_out == alone.jobs[j].n_out &&
                               !memcmp(together.out[j], alone.out[j], sizeof alone.out[j]),
                           "%s, %d streams, %d rows: job %d answers otherwise", model_names[k],
                           limits[i].streams, limits[i].rows, j);
                CHECK_THAT(together.sums[j] == alone.sums[j],
                           "%s, %d streams, %d rows: job %d has other bits", model_names[k],
                           limits[i].streams, limits[i].rows, j);
            }
            /* With room for it the steered jobs shared their beginning: fewer rows were edited. */
            if (i == 0)
                for (int j = 6; j < 10; j++) /* all have the hits of all */
                    CHECK_THAT(together.hits[j][0] == steered - 3 * 10,
                               "job %d: %lld rows steered, %lld alone", j,
                               (long long)together.hits[j][0], (long long)steered);
        }
        /* The same with the plans mixed: then prefixes may hold all streams while jobs wait. */
        for (int streams = 2; streams < 9; streams++) {
            steer_job mixed[JOBS];
            make_jobs(&together, m, v);
            for (int j = 0; j < JOBS; j++) mixed[j] = together.jobs[j * 7 % JOBS];
            memcpy(together.jobs, mixed, sizeof mixed);
            steer_status s = walk_jobs(m, (steer_limits)LIMITS(streams, 32, 32), &together, 0, JOBS,
                                       &e);
            CHECK_THAT(!s, "%s, %d streams, mixed plans: %s", model_names[k], streams, e.text);
            for (int j = 0; j < JOBS && !s; j++)
                CHECK_THAT(together.sums[j] == alone.sums[j * 7 % JOBS] &&
                               together.jobs[j].n_out == alone.jobs[j * 7 % JOBS].n_out,
                           "%s, %d streams, mixed plans: job %d has other bits", model_names[k],
                           streams, j);
        }
        /* A context of a single stream, or of a single row. */
        static const steer_limits tight[] = {LIMITS(1, 32, 32), LIMITS(1, 32, 1), LIMITS(4, 32, 1),
                                             LIMITS(9, 32, 1)};
        for (size_t i = 0; i < sizeof tight / sizeof *tight; i++) {
            make_jobs(&together, m, v);
            steer_status s = walk_jobs(m, tight[i], &together, 0, 6, &e);
            CHECK_THAT(!s, "%d streams, %d rows: %s", tight[i].streams, tight[i].rows, e.text);
            for (int j = 0; j < 6 && !s; j++)
                CHECK_THAT(together.sums[j] == alone.sums[j], "job %d", j);
        }
        free((void *)v);
    }
}

/* Logits of every token of one stream under any plan, beside a twin under another; tape if
 * given. */
static steer_status run_plan(const steer_model *m, const steer_plan *plan, int64_t *hits,
                             const steer_plan *twin_plan, int64_t *twin_hits, int twin,
                             const int *tokens, int n, float *logits, steer_tape *tape,
                             steer_error *e) {
    steer_limits l = {.streams = 2, .positions = n, .rows = 2 * n};
    steer_context *c = steer_context_new(m, &l, e);
    if (!c) return e->code;
    steer_job job = {.prompt = tokens, .n_prompt = n};
    steer_row rows[128];
    steer_status s = STEER_OK;
    if (twin) s = steer_begin(c, 1, twin_plan, -1, twin_hits, e);
    if (!s) s = steer_begin(c, 0, plan, twin ? 1 : -1, hits, e);
    int count = put_rows(rows, &job, 0, twin ? 1 : -1, 0, n);
    for (int i = 0; i < count; i++) {
        rows[i].logits = rows[i].stream == 0;
        if (tape) rows[i].tape = 1 + rows[i].pos + (rows[i].stream ? n : 0);
    }
    if (!s) s = steer_run(c, rows, count, tape, e);
    for (int i = 0; i < count && !s && logits; i++)
        if (rows[i].stream == 0)
            memcpy(logits + (size_t)rows[i].pos * m->config.vocab, steer_logits(c, i),
                   sizeof *logits * (size_t)m->config.vocab);
    steer_context_free(c);
    return s;
}
static steer_status run_pair(const steer_model *m, changes *plan, changes *twin_plan, int twin,
                             const int *tokens, int n, float *logits, steer_tape *tape,
                             steer_error *e) {
    const steer_plan *list = plan ? plan_of(plan) : NULL;
    const steer_plan *twin_list = twin_plan ? plan_of(twin_plan) : NULL;
    return run_plan(m, list, plan ? plan->hits : NULL, twin_list, twin_plan ? twin_plan->hits : NULL,
                    twin, tokens, n, logits, tape, e);
}
static void test_equal_plans(void) {
    enum { N = 18 };
    int tokens[N];
    steer_error e = {0};
    for (int k = 0; k < MODELS; k++) {
        steer_model *m = test_model(k);
        int vocab = m->config.vocab;
        size_t row = sizeof(float) * (size_t)vocab, size = row * N;
        float *plain = malloc(size), *steered = malloc(size), *got = malloc(size);
        const float *v = random_vector(82, 1, k, m->config.d, 0, 1);
        dice = 13;
        random_tokens(tokens, N, vocab);
        changes add = test_plan(ADD, v, NULL);
        CHECK_THAT(!run_pair(m, NULL, NULL, 0, tokens, N, plain, NULL, &e), "%s", e.text);
        CHECK_THAT(!run_pair(m, &add, NULL, 0, tokens, N, steered, NULL, &e), "%s", e.text);
        CHECK_THAT(hits_of(&add, STEER_ADD) == N && add.plan.n == 1,
                   "%lld rows steered", hits_of(&add, STEER_ADD));
        /* A twin that is not read leaves an unsteered stream as it is. */
        CHECK_THAT(!run_pair(m, NULL, NULL, 1, tokens, N, got, NULL, &e) &&
                       !memcmp(got, plain, size),
                   "%s: a twin without a plan", model_names[k]);
        /* So it does a steered one, which enters at its block with the twin's residual. */
        changes p = test_plan(ADD, v, NULL);
        CHECK_THAT(!run_pair(m, &p, NULL, 1, tokens, N, got, NULL, &e) &&
                       !memcmp(got, steered, size),
                   "%s: add beside a twin", model_names[k]);
        /* Frozen to a run of its own. */
        for (unsigned freeze = 1; freeze < 8; freeze++) {
            changes own = test_plan(ADD, v, NULL), frozen = test_plan(ADD, v, NULL);
            frozen.freeze = freeze;
            CHECK_THAT(!run_pair(m, &frozen, &own, 1, tokens, N, got, NULL, &e), "%s", e.text);
            CHECK_THAT(!memcmp(got, steered, size), "%s: freeze %u to its own run changes bits",
                       model_names[k], freeze);
            CHECK_THAT(hits_of(&frozen, STEER_FREEZE) == N * (m->config.layers - 1), "%lld rows frozen",
                       hits_of(&frozen, STEER_FREEZE));
        }
        /* A span that covers all, one that covers none of the first positions, and one of the
         * first only. */
        p = test_plan(ADD, v, NULL), p.from = -5, p.to = 1000;
        CHECK_THAT(!run_pair(m, &p, NULL, 0, tokens, N, got, NULL, &e) &&
                       !memcmp(got, steered, size),
                   "%s: the whole span", model_names[k]);
        p = test_plan(ADD, v, NULL), p.from = 7;
        CHECK_THAT(!run_pair(m, &p, NULL, 0, tokens, N, got, NULL, &e) &&
                       !memcmp(got, plain, 7 * row) &&
                       memcmp(got + 7 * vocab, plain + 7 * vocab, row) && hits_of(&p, STEER_ADD) == N - 7,
                   "%s: a span from 7 on", model_names[k]);
        p = test_plan(ADD, v, NULL), p.to = 7;
        CHECK_THAT(!run_pair(m, &p, NULL, 0, tokens, N, got, NULL, &e) &&
                       !memcmp(got, steered, 7 * row) &&
                       memcmp(got + 7 * vocab, steered + 7 * vocab, row) && hits_of(&p, STEER_ADD) == 7,
                   "%s: a span to 7", model_names[k]);
        /* A fork continues as if it had been computed; so does the stream it came from. */
        steer_limits l = {.streams = 2, .positions = N, .rows = N};
        for (int n = 0; n <= N; n += n < 3 ? 1 : 5) {
            steer_context *c = steer_context_new(m, &l, &e);
            steer_row rows[N];
            p = test_plan(ADD, v, NULL);
            steer_begin(c, 0, plan_of(&p), -1, NULL, NULL);
            steer_begin(c, 1, &p.plan, -1, NULL, NULL);
            for (int t = 0; t < N; t++) rows[t] = (steer_row){0, t, tokens[t], 0, 0};
            CHECK_THAT(!steer_run(c, rows, N, NULL, &e) && !steer_fork(c, 0, 1, n, &e),
                       "fork after %d: %s", n, e.text);
            for (int t = n; t < N; t++) rows[t - n] = (steer_row){1, t, tokens[t], 1, 0};
            if (n < N) {
                CHECK_THAT(!steer_run(c, rows, N - n, NULL, &e), "%s", e.text);
                CHECK_THAT(!memcmp(steer_logits(c, 0), steered + n * vocab, (size_t)(N - n) * row),
                           "%s: fork after %d", model_names[k], n);
            }
            CHECK_THAT(steer_fork(c, 0, 1, 1, &e) == STEER_EARG || n == 0,
                       "a fork into a stream that holds %d positions", n);
            steer_context_free(c);
        }
        free(plain), free(steered), free(got), free((void *)v);
    }
}

/* Plans that are said in two ways, edit by edit; and edits at some positions only. */
static void test_edit_lists(void) {
    enum { N = 18, AT = 7 };
    int tokens[N];
    steer_error e = {0};
    for (int k = 0; k < MODELS; k++) {
        steer_model *m = test_model(k);
        int vocab = m->config.vocab;
        size_t row = sizeof(float) * (size_t)vocab, size = row * N;
        float *one = malloc(size), *two = malloc(size), *plain = malloc(size);
        const float *v = random_vector(83, 1, k, m->config.d, 0, 1);
        dice = 23;
        random_tokens(tokens, N, vocab);
        const steer_edit add = {STEER_ADD, .layer = 1, .coeff = 1.5f, .v = v};
        const steer_edit low = {STEER_ADD, .layer = 1, .to = AT, .coeff = 1.5f, .v = v};
        const steer_edit high = {STEER_ADD, .layer = 1, .from = AT, .coeff = 1.5f, .v = v};
        const steer_edit later = {STEER_ADD, .layer = 2, .coeff = -1, .v = v};
        const steer_edit qk = {STEER_FREEZE, .what = STEER_QK}, values = {STEER_FREEZE, .what = STEER_V};
        const steer_edit both = {STEER_FREEZE, .layer = 1, .what = STEER_QK | STEER_V};
        const steer_edit early = {STEER_FREEZE, .to = AT, .what = STEER_QK | STEER_V};
        const steer_edit images = {STEER_REMOVE, .what = STEER_SVV | STEER_MLP_DIRECT};
        const steer_edit svv = {STEER_REMOVE, .layer = 1, .what = STEER_SVV};
        const steer_edit direct = {STEER_REMOVE, .to = N, .what = STEER_MLP_DIRECT};
        const steer_edit early_image = {STEER_REMOVE, .to = AT, .what = STEER_SVV};
        const steer_edit zero = {STEER_ABLATE, .v = v}, early_zero = {STEER_ABLATE, .to = AT, .v = v};
        const struct {
            const char *what;
            steer_edit edits[2][3];
            int n[2], same; /* rows of equal bits, from the first on; the next one differs */
        } pairs[] = {{"a span in two", {{add}, {high, low}}, {1, 2}, N},
                     {"QK and V", {{add, both}, {values, qk, add}}, {2, 3}, N},
                     {"both removals", {{add, images}, {add, direct, svv}}, {2, 3}, N},
                     {"an ablation twice", {{zero}, {zero, zero}}, {1, 2}, 0},
                     {"a second block", {{add}, {add, later}}, {1, 2}, 0},
                     {"frozen before AT", {{add, both}, {add, early}}, {2, 2}, AT},
                     {"removed before AT", {{add, svv}, {add, early_image}}, {2, 2}, AT},
                     {"ablated before AT", {{zero}, {early_zero}}, {1, 1}, AT}};
        for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
            int64_t hits[3] = {0};
            float *logits[2] = {one, two};
            for (int j = 0; j < 2; j++) {
                steer_plan p = {pairs[i].edits[j], pairs[i].n[j]};
                CHECK_THAT(!run_plan(m, &p, hits, NULL, NULL, !plan_has(&p, STEER_ABLATE), tokens, N,
                                     logits[j], NULL, &e),
                           "%s, %s: %s", model_names[k], pairs[i].what, e.text);
                for (int h = 0; h < p.n; h++)
                    CHECK_THAT(hits[h] > 0, "%s: edit %d never fires", pairs[i].what, h);
            }
            size_t same = (size_t)pairs[i].same;
            int ablated_again = pairs[i].edits[1][1].kind == STEER_ABLATE;
            CHECK_THAT(!memcmp(one, two, same * row), "%s, %s: other bits", model_names[k],
                       pairs[i].what);
            CHECK_THAT(same == N || ablated_again ||
                           memcmp(one + same * (size_t)vocab, two + same * (size_t)vocab, row),
                       "%s, %s: no difference at %d", model_names[k], pairs[i].what, pairs[i].same);
            double far = 0;
            for (size_t j = 0; j < N * (size_t)vocab; j++)
                far = fmax(far, fabs((double)one[j] - (double)two[j]));
            CHECK_THAT(!ablated_again || far < 1e-3, "%s: ablated again, off by %g", model_names[k], far);
        }
        /* A vector in each of two blocks is what a residual shows: block 2's gets its own on top. */
        steer_plan lists[2] = {{&add, 1}, {(const steer_edit[]){later, add}, 2}};
        steer_tape tape[2];
        size_t d = (size_t)m->config.d, plane = 2 * N * d;
        for (int j = 0; j < 2; j++) {
            tape[j] = (steer_tape){.resid = zeros(plane * (size_t)(m->config.layers + 1), sizeof(float)),
                                   .rows = 2 * N};
            CHECK_THAT(!run_plan(m, &lists[j], NULL, NULL, NULL, 0, tokens, N, plain, &tape[j], &e),
                       "%s", e.text);
        }
        for (size_t t = 0; t < N; t++)
            for (size_t i = 0; i < d; i++) {
                float x = tape[0].resid[2 * plane + t * d + i], y = tape[1].resid[2 * plane + t * d + i];
                CHECK_THAT(y == x - v[i], "%s: position %zu: %.9g, not %.9g - v",
                           model_names[k], t, (double)y, (double)x);
            }
        free(tape[0].resid), free(tape[1].resid);
        free(one), free(two), free(plain), free((void *)(uintptr_t)v);
    }
}

/* ---------------------------------------- what must hold whatever the weights */

static void check_identities(const steer_model *m, const char *name) {
    enum { N = 14 };
    const steer_config *g = &m->config;
    size_t d = (size_t)g->d, L = (size_t)g->layers;
    int tokens[N], layer = g->layers / 2;
    steer_error e = {0};
    steer_tape plain = {.resid = malloc(sizeof(float) * 2 * N * (L + 1) * d), .rows = 2 * N},
               other = plain;
    other.resid = malloc(sizeof(float) * 2 * N * (L + 1) * d);
    float *v = malloc(sizeof *v * d), *keep = malloc(sizeof *keep * 3 * L);
    dice = 14;
    random_tokens(tokens, N, g->vocab);
    CHECK_THAT(!run_pair(m, NULL, NULL, 0, tokens, N, NULL, &plain, &e), "%s", e.text);
    double scale = 0;
    for (size_t i = 0; i < d; i++)
        scale += pow((double)plain.resid[((size_t)layer * 2 * N + N - 1) * d + i], 2);
    scale = sqrt(scale / (double)d);
    for (size_t i = 0; i < d; i++) v[i] = (float)(scale * random_value(9, 1, 0, i));
    for (size_t i = 0; i < 3 * L; i++) keep[i] = (float)(scale * 3 * random_value(9, 2, 0, i));
#define X(tape, t, b, i) tape.resid[((size_t)(b) * 2 * N + (size_t)(t)) * d + (i)]
    /* After an ablation each block's input has the component that was to be kept. */
    for (int kept = 0; kept < 2; kept++) {
        changes p = {.ablate = v, .keep = kept ? keep : NULL};
        CHECK_THAT(!run_pair(m, &p, NULL, 0, tokens, N, NULL, &other, &e), "%s", e.text);
        CHECK_THAT(hits_of(&p, STEER_ABLATE) == 3 * N * (int64_t)L, "%lld rows ablated", hits_of(&p, STEER_ABLATE));
        double norm = 0, off = 0;
        for (size_t i = 0; i < d; i++) norm += (double)v[i] * (double)v[i];
        norm = sqrt(norm);
        for (size_t t = 0; t < N; t++)
            for (size_t b = 0; b < L; b++) {
                double along = 0, length = 0;
                for (size_t i = 0; i < d; i++)
                    along += (double)X(other, t, b, i) * (double)v[i] / norm,
                        length += pow((double)X(other, t, b, i), 2);
                off = fmax(off, fabs(along - (kept ? (double)keep[b] : 0)) / (sqrt(length) + 1e-9));
            }
        CHECK_THAT(off < 1e-5, "%s: the component left is off by %.2g of the residual", name, off);
    }
    /* Adding at block l changes its input by exactly a s and nothing below. */
    changes p = {.add = v, .coeff = -0.75f, .layer = layer};
    CHECK_THAT(!run_pair(m, &p, NULL, 0, tokens, N, NULL, &other, &e), "%s", e.text);
    for (size_t t = 0; t < N; t++) {
        for (int b = 0; b < layer; b++)
            CHECK_THAT(!memcmp(&X(other, t, b, 0), &X(plain, t, b, 0), sizeof(float) * d),
                       "%s: position %zu changes below block %d", name, t, layer);
        for (size_t i = 0; i < d; i++) {
            float x = X(plain, t, layer, i), y = X(other, t, layer, i);
            CHECK_THAT(y == fmaf(p.coeff, v[i], x) || y == x + p.coeff * v[i],
                       "%s: %.9g, not %.9g + a s", name, (double)y, (double)x);
        }
    }
    /* Patterns, values and MLP outputs frozen: the vector alone is left, unchanged to the end. */
    p = (changes){
        .add = v, .coeff = -0.75f, .layer = layer, .freeze = STEER_QK | STEER_V | STEER_MLP};
    CHECK_THAT(!run_pair(m, &p, NULL, 1, tokens, N, NULL, &other, &e), "%s", e.text);
    double off = 0, size = 0;
    for (size_t t = 0; t < N; t++)
        for (size_t b = (size_t)layer; b <= L; b++)
            for (size_t i = 0; i < d; i++) {
                double shift = (double)X(other, t, b, i) - (double)X(other, N + t, b, i);
                off = fmax(off, fabs(shift - (double)p.coeff * (double)v[i]));
                size = fmax(size, fabs((double)X(other, t, b, i)));
                CHECK_THAT(X(other, N + t, b, i) == X(plain, t, b, i),
                           "%s: the twin is not the unsteered run", name);
            }
    CHECK_THAT(off < 1e-4 && off < 1e-5 * size + 1e-6,
               "%s: all frozen, the residual is off by %.3g of %.3g", name, off, size);
#undef X
    free(plain.resid), free(other.resid), free(v), free(keep);
}
static void test_identities(void) {
    for (int k = 0; k < MODELS; k++) check_identities(test_model(k), model_names[k]);
    static const char *const files[] = {"weights/tiny-llama.bin", "weights/tiny-gemma.bin"};
    for (int k = 0; k < 2; k++) {
        steer_model *m = open_or_fail(files[k]);
        if (m) check_identities(m, files[k]);
        steer_close(m);
    }
}

/* ---------------------------------------------------------------- plans that are wrong */

static void test_plan_errors(void) {
    steer_model *m = test_model(0);
    steer_limits l = {.streams = 3, .positions = 32, .rows = 64};
    steer_error e = {0};
    steer_context *c = steer_context_new(m, &l, &e);
    float zero[64] = {0}, broken[64] = {0}, v[64], keep[12];
    int prompt[] = {1, 2, 3, 4, 5}, other[] = {1, 2, 9, 4, 5}, out[8];
    for (int i = 0; i < 64; i++) v[i] = (float)random_value(9, 9, 9, (uint64_t)i);
    for (int i = 0; i < 12; i++) keep[i] = 0;
    broken[63] = NAN, v[0] = 1;
    const struct {
        const char *what, *word;
        changes plan;
        int twin;
        steer_status code;
    } wrong[] = {
        {"a zero vector", "zero", {.add = zero, .coeff = 1}, -1, STEER_EARG},
        {"a zero direction", "zero", {.ablate = zero}, -1, STEER_EARG},
        {"coefficient 0", "coefficient", {.add = v, .coeff = 0}, -1, STEER_EARG},
        {"coefficient NaN", "coefficient", {.add = v, .coeff = NAN}, -1, STEER_EARG},
        {"coefficient infinite", "coefficient", {.add = v, .coeff = INFINITY}, -1, STEER_EARG},
        {"a NaN in the vector", "finite", {.add = broken, .coeff = 1}, -1, STEER_ENONFINITE},
        {"a NaN in the direction", "finite", {.ablate = broken}, -1, STEER_ENONFINITE},
        {"block 4 of 4", "block", {.add = v, .coeff = 1, .layer = 4}, -1, STEER_EARG},
        {"block -1", "block", {.add = v, .coeff = 1, .layer = -1}, -1, STEER_EARG},
        {"nothing at all", "nothing", {.coeff = 1}, -1, STEER_EARG},
        {"freeze without a vector", "no vector", {.freeze = STEER_V}, 1, STEER_EARG},
        {"freeze without a twin",
         "twin",
         {.add = v, .coeff = 1, .freeze = STEER_V},
         -1,
         STEER_EARG},
        {"a twin's values in no block", "block", {.freeze = STEER_V, .layer = 9}, 1, STEER_EARG},
        {"adding and ablating", "take one", {.add = v, .coeff = 1, .ablate = v}, -1, STEER_EARG},
        {"an unknown freeze", "unknown", {.add = v, .coeff = 1, .freeze = 8}, 1, STEER_EARG},
        {"an unknown removal", "unknown", {.add = v, .coeff = 1, .remove = 4}, -1, STEER_EARG},
        {"removal without a vector", "vector", {.ablate = v, .remove = STEER_SVV}, -1, STEER_EARG},
        {"ablation with a twin", "twin", {.ablate = v}, 1, STEER_EARG},
        {"its own twin", "twin", {.add = v, .coeff = 1, .freeze = STEER_V}, 0, STEER_EARG},
        {"a twin that does not exist",
         "twin",
         {.add = v, .coeff = 1, .freeze = STEER_V},
         3,
         STEER_EARG}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        changes p = wrong[i].plan;
        memset(&e, 0, sizeof e);
        steer_status s = steer_begin(c, 0, plan_of(&p), wrong[i].twin, p.hits, &e);
        CHECK_THAT(s == wrong[i].code && e.code == s && strstr(e.text, wrong[i].word),
                   "%s: status %d, \"%s\"", wrong[i].what, s, e.text);
        CHECK_THAT(steer_begin(c, 0, &p.plan, wrong[i].twin, p.hits, NULL) == s,
                   "%s: without an error to fill in", wrong[i].what);
    }
    /* Lists that no line says: of no kind, twice what can be only once, an order that can't be. */
    const steer_edit add = {STEER_ADD, .layer = 1, .coeff = 1, .v = v};
    const steer_edit start = {STEER_START, .layer = 2, .v = v};
    const struct {
        const char *what, *word;
        steer_edit edits[2];
        int n;
    } lists[] = {{"no kind", "unknown kind", {{0}}, 1},
                 {"a kind behind the last", "unknown kind", {{.kind = STEER_START + 1}}, 1},
                 {"less than no edits", "nothing", {add}, -1},
                 {"an addition of nothing", "no vector", {{STEER_ADD, .coeff = 1}}, 1},
                 {"a cut of nothing", "which", {{.kind = STEER_CUT}}, 1},
                 {"a start from nothing", "nothing", {{.kind = STEER_START}}, 1},
                 {"a start at some positions", "nothing", {{STEER_START, .v = v, .to = 2}}, 1},
                 {"two starts", "twice", {start, start}, 2},
                 {"a start above the vector", "above", {add, start}, 2},
                 {"no freezing", "nothing", {add, {.kind = STEER_FREEZE}}, 2}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        steer_plan list = {lists[i].edits, lists[i].n};
        memset(&e, 0, sizeof e);
        CHECK_THAT(steer_begin(c, 0, &list, 1, NULL, &e) == STEER_EARG &&
                       strstr(e.text, lists[i].word),
                   "%s: \"%s\"", lists[i].what, e.text);
    }
    CHECK_THAT(steer_begin(c, -1, NULL, -1, NULL, &e) == STEER_EARG &&
                   steer_begin(c, 3, NULL, -1, NULL, &e) == STEER_EARG,
               "streams");

    /* What generates leaves no stream under its plans, whose memory is the caller's again. */
    const steer_edit adds = {STEER_ADD, .coeff = 1, .v = v};
    steer_plan passing = {&adds, 1};
    steer_job brief = {.prompt = prompt, .n_prompt = 5, .max_new = 1, .out = out, .plan = &passing};
    steer_row begun = {0, 0, 1, 0, 0};
    CHECK_THAT(!steer_generate(c, &brief, 1, NULL, NULL, &e) && !c->streams[0].n_edits &&
                   !steer_run(c, &begun, 1, NULL, &e),
               "after generation: %s", e.text);
    steer_plan nowhere = {NULL, 3};
    steer_job lost = {.prompt = prompt, .n_prompt = 5, .max_new = 1, .out = out, .plan = &nowhere};
    CHECK_THAT(steer_generate(c, &lost, 1, NULL, NULL, &e) == STEER_EARG && strstr(e.text, "nothing"),
               "edits that are not there: %s", e.text);

    /* An edit that never fires: a span beyond the text, or a plan used again whose hits are old. */
    steer_job job = {.prompt = prompt, .n_prompt = 5, .max_new = 3, .out = out};
    const struct {
        const char *what;
        changes plan;
        steer_status code;
    } edits[] = {
        {"a span beyond the text", {.add = v, .coeff = 1, .from = 20}, STEER_ENOHIT},
        {"an empty span", {.add = v, .coeff = 1, .from = 4, .to = 3}, STEER_ENOHIT},
        {"removal beyond the text",
         {.add = v, .coeff = 1, .from = 20, .remove = STEER_SVV},
         STEER_ENOHIT},
        {"the last token of the prompt", {.add = v, .coeff = 1, .from = 4, .to = 5}, STEER_OK},
        {"a generated token", {.add = v, .coeff = 1, .from = 5}, STEER_OK},
        {"ablation", {.ablate = v, .keep = keep}, STEER_OK},
        {"frozen and removed",
         {.add = v, .coeff = 1, .freeze = STEER_QK, .remove = STEER_MLP_DIRECT},
         STEER_OK}};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        changes p = edits[i].plan;
        job.plan = plan_of(&p);
        memset(&e, 0, sizeof e);
        steer_status s = steer_generate(c, &job, 1, NULL, NULL, &e);
        CHECK_THAT(s == edits[i].code && (!s || *e.text), "%s: status %d, \"%s\"", edits[i].what, s,
                   e.text);
    }
    changes again = {.add = v, .coeff = 1, .from = 6};
    int longer[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    steer_job first = {.prompt = longer, .n_prompt = 9, .max_new = 1, .out = out,
                        .plan = plan_of(&again), .hits = again.hits};
    steer_job second = {.prompt = prompt, .n_prompt = 5, .max_new = 1, .out = out,
                        .plan = plan_of(&again), .hits = again.hits};
    steer_status s = steer_generate(c, &first, 1, NULL, NULL, &e);
    CHECK_THAT(!s && hits_of(&again, STEER_ADD) == 3, "%lld rows steered: %s", hits_of(&again, STEER_ADD), e.text);
    s = steer_generate(c, &second, 1, NULL, NULL, &e);
    CHECK_THAT(s == STEER_ENOHIT,
               "a plan used again: the hits of an earlier walk hide that it never fires");
    float bad_keep[12] = {NAN};
    changes p = {.ablate = v, .keep = bad_keep};
    job.plan = plan_of(&p);
    s = steer_generate(c, &job, 1, NULL, NULL, &e);
    CHECK_THAT(s == STEER_ENONFINITE, "a NaN to keep: status %d", s);

    /* Rows: the twin must be fed the same token in the same run, positions must go on, all must
     * exist. */
    p = (changes){.add = v, .coeff = 1, .layer = 1, .freeze = STEER_V};
    static const struct {
        const char *what, *word;
        steer_row rows[3];
        int n;
    } batches[] = {{"a twin fed another token", "twin", {{1, 0, 2, 0, 0}, {0, 0, 3, 0, 0}}, 2},
                   {"a twin not fed", "twin", {{0, 0, 3, 0, 0}}, 1},
                   {"a twin at another position",
                    "twin",
                    {{1, 0, 3, 0, 0}, {1, 1, 3, 0, 0}, {0, 0, 4, 0, 0}},
                    3},
                   {"a gap", "position 0, not 1", {{2, 1, 3, 0, 0}}, 1},
                   {"a position twice", "position", {{2, 0, 3, 0, 0}, {2, 0, 3, 0, 0}}, 2},
                   {"a negative position", "position", {{2, -1, 3, 0, 0}}, 1},
                   {"a position beyond the context", "position 32", {{2, 32, 3, 0, 0}}, 1},
                   {"token 96 of 96", "token 96", {{2, 0, 96, 0, 0}}, 1},
                   {"token -1", "token -1", {{2, 0, -1, 0, 0}}, 1},
                   {"stream 3 of 3", "stream 3", {{3, 0, 1, 0, 0}}, 1},
                   {"stream -1", "stream -1", {{-1, 0, 1, 0, 0}}, 1},
                   {"a tape that is not there", "tape", {{2, 0, 1, 0, 1}}, 1},
                   {"tape row -1", "tape", {{2, 0, 1, 0, -1}}, 1},
                   {"no rows", "0 rows", {{0, 0, 0, 0, 0}}, 0},
                   {"too many rows", "65 rows", {{0, 0, 0, 0, 0}}, 65}};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        steer_row rows[65] = {{0}};
        memcpy(rows, batches[i].rows, sizeof batches[i].rows);
        steer_begin(c, 1, NULL, -1, NULL, NULL), steer_begin(c, 2, NULL, -1, NULL, NULL);
        CHECK_THAT(!steer_begin(c, 0, plan_of(&p), 1, NULL, &e), "%s", e.text);
        memset(&e, 0, sizeof e);
        s = steer_run(c, rows, batches[i].n, NULL, &e);
        CHECK_THAT(s == STEER_EARG && strstr(e.text, batches[i].word), "%s: status %d, \"%s\"",
                   batches[i].what, s, e.text);
        CHECK_THAT(steer_run(c, rows, batches[i].n, NULL, NULL) == s,
                   "%s: without an error to fill in", batches[i].what);
    }
    float resid[5 * 64];
    steer_tape tape = {.resid = resid, .rows = 1};
    steer_row row = {2, 0, 1, 0, 2};
    steer_begin(c, 2, NULL, -1, NULL, NULL);
    CHECK_THAT(steer_run(c, &row, 1, &tape, &e) == STEER_EARG, "row 2 of a tape of 1");
    row.tape = 1;
    CHECK_THAT(!steer_run(c, &row, 1, &tape, &e), "after errors the stream goes on: %s", e.text);
    CHECK_THAT(!steer_logits(c, 0), "logits that were not asked for");
    const int forks[][3] = {{2, 2, 1}, {2, 3, 1}, {-1, 2, 0}, {2, 1, 2}, {2, 1, -1}, {3, 1, 0}};
    for (size_t i = 0; i < sizeof forks / sizeof *forks; i++)
        CHECK_THAT(steer_fork(c, forks[i][0], forks[i][1], forks[i][2], &e) == STEER_EARG &&
                       *e.text,
                   "fork %zu", i);
    (void)other;
    steer_context_free(c);
    const steer_limits sizes[] = {LIMITS(1, 513, 4), LIMITS(-1, 8, 4),      LIMITS(1, -8, 4),
                                  LIMITS(1, 8, -4),  LIMITS(1 << 21, 8, 4), LIMITS(1, 1 << 25, 4)};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        memset(&e, 0, sizeof e);
        c = steer_context_new(m, &sizes[i], &e);
        CHECK_THAT(!c && e.code == STEER_EARG && *e.text, "context %zu: %s", i, e.text);
        CHECK_THAT(!steer_context_new(m, &sizes[i], NULL), "without an error to fill in");
    }
}

/* ---------------------------------------------------------------- generation */

static struct { int count, last_job, stop_after; } ticks;
static int count_tick(void *user, int job, int token) {
    (void)user, (void)token;
    ticks.last_job = job;
    return ++ticks.count == ticks.stop_after;
}
static void test_generation(void) {
    steer_model *m = test_model(3);
    steer_config *config = &m->config;
    steer_limits l = {.streams = 8, .positions = 64, .rows = 64};
    steer_error e = {0};
    steer_context *c = steer_context_new(m, &l, &e);
    int prompt[6], out[40], again[40];
    dice = 15;
    random_tokens(prompt, 6, config->vocab);
    steer_job job = {.prompt = prompt, .n_prompt = 6, .max_new = 40, .out = out};
    int eot = config->eot[0];
    config->eot[0] = config->vocab; /* none */
    CHECK_THAT(!steer_generate(c, &job, 1, NULL, NULL, &e) && job.n_out == 40, "%d tokens: %s",
               job.n_out, e.text);
    /* Greedy means the largest logit of the text so far. */
    steer_begin(c, 0, NULL, -1, NULL, NULL);
    steer_row rows[46];
    for (int t = 0; t < 46; t++)
        rows[t] = (steer_row){0, t, t < 6 ? prompt[t] : out[t - 6], t >= 5 && t < 45, 0};
    CHECK_THAT(!steer_run(c, rows, 45, NULL, &e), "%s", e.text);
    for (int t = 5; t < 45; t++)
        CHECK_THAT(argmax(steer_logits(c, t), config->vocab) == out[t - 5],
                   "token %d is not the likeliest", t - 5);
    /* It stops at an end-of-turn token, which is the last of the answer, and not before. */
    for (int k = 0; k < 12; k++) {
        int first = 0;
        while (out[first] != out[k]) first++;
        config->eot[0] = out[k];
        job.out = again;
        CHECK_THAT(!steer_generate(c, &job, 1, NULL, NULL, &e) && job.n_out == first + 1 &&
                       !memcmp(again, out, sizeof *out * (size_t)job.n_out),
                   "%d tokens to token %d", job.n_out, out[k]);
    }
    config->eot[0] = config->vocab;
    for (int n = 0; n < 5; n++) {
        job.max_new = n, job.n_out = 7;
        CHECK_THAT(!steer_generate(c, &job, 1, NULL, NULL, &e) && job.n_out == n, "%d tokens of %d",
                   job.n_out, n);
    }
    /* Sampling: the same seed gives the same text, another one another; a tiny top_p is greedy. */
    int texts[8][40], differ = 0;
    for (int i = 0; i < 8; i++) {
        job = (steer_job){.prompt = prompt,
                          .n_prompt = 6,
                          .max_new = 40,
                          .out = texts[i],
                          .temperature = 3,
                          .seed = (uint64_t)(i / 2)};
        CHECK_THAT(!steer_generate(c, &job, 1, NULL, NULL, &e), "%s", e.text);
        if (i % 2)
            CHECK_THAT(!memcmp(texts[i], texts[i - 1], sizeof texts[i]), "seed %d gives two texts",
                       i / 2);
        else if (i) differ += !!memcmp(texts[i], texts[i - 1], sizeof texts[i]);
    }
    CHECK_THAT(differ == 3, "four seeds: %d differ from the one before", differ);
    job.top_p = 1e-6f, job.out = again;
    CHECK_THAT(!steer_generate(c, &job, 1, NULL, NULL, &e) && !memcmp(again, out, sizeof out),
               "a tiny top_p is greedy");
    job.top_p = 0, job.temperature = 1e-5f;
    CHECK_THAT(!steer_generate(c, &job, 1, NULL, NULL, &e) && !memcmp(again, out, sizeof out),
               "a tiny temperature is greedy");
    steer_job many[8];
    int outs[8][40];
    for (int i = 0; i < 8; i++) {
        many[i] = (steer_job){.prompt = prompt,
                              .n_prompt = 6,
                              .max_new = 40,
                              .out = outs[i],
                              .temperature = 3,
                              .seed = (uint64_t)(i / 2)};
    }
    CHECK_THAT(!steer_generate(c, many, 8, NULL, NULL, &e) && !memcmp(outs, texts, sizeof outs),
               "sampled side by side");
    /* How often each token is drawn. */
    float logits[4];
    const double p[4] = {0.5, 0.3, 0.15, 0.05};
    ranked scratch[4];
    for (int i = 0; i < 4; i++) logits[i] = (float)(2 * log(p[i])); /* at temperature 2 */
    for (int cut = 0; cut < 2; cut++) {
        int counts[4] = {0}, draws = 20000;
        for (int i = 0; i < draws; i++) {
            steer_job j = {.temperature = 2, .top_p = cut ? 0.7f : 0, .seed = (uint64_t)i};
            counts[sample(&j, logits, 4, scratch)]++;
        }
        for (int i = 0; i < 4; i++) {
            double wanted = cut ? (i < 2 ? p[i] / 0.8 : 0) : p[i];
            CHECK_THAT(fabs((double)counts[i] / draws - wanted) < 0.015,
                       "top_p %s: token %d drawn %d times of %d", cut ? "0.7" : "1", i, counts[i],
                       draws);
        }
    }
    /* The visitor of tokens sees each, and can stop all. */
    for (int stop = 0; stop < 8; stop += 5) {
        for (int i = 0; i < 8; i++)
            many[i] = (steer_job){.prompt = prompt, .n_prompt = 6, .max_new = 5, .out = outs[i]};
        ticks.count = 0, ticks.stop_after = stop;
        CHECK_THAT(!steer_generate(c, many, 8, count_tick, NULL, &e), "%s", e.text);
        int total = 0;
        for (int i = 0; i < 8; i++) total += many[i].n_out;
        CHECK_THAT(ticks.count == total && (stop ? total == stop : total == 40),
                   "%d ticks, %d tokens", ticks.count, total);
    }
    /* Too small, too long, wrong. */
    job = (steer_job){.prompt = prompt, .n_prompt = 6, .max_new = 59, .out = out};
    CHECK_THAT(steer_generate(c, &job, 1, NULL, NULL, &e) == STEER_EARG && strstr(e.text, "holds"),
               "%s", e.text);
    job.max_new = INT_MAX;
    CHECK_THAT(steer_generate(c, &job, 1, NULL, NULL, &e) == STEER_EARG, "INT_MAX new tokens");
    job.max_new = 4, job.n_prompt = 0;
    CHECK_THAT(steer_generate(c, &job, 1, NULL, NULL, &e) == STEER_EARG && strstr(e.text, "empty"),
               "%s", e.text);
    job.n_prompt = 6, prompt[2] = config->vocab;
    CHECK_THAT(steer_generate(c, &job, 1, NULL, NULL, &e) == STEER_EARG && *e.text,
               "a token outside the vocabulary");
    CHECK_THAT(!steer_generate(c, NULL, 0, NULL, NULL, &e), "no jobs at all");
    steer_context_free(c);
    float *v = (float *)random_vector(83, 1, 0, config->d, 0, 1);
    changes frozen = test_plan(FREEZE_V, v, NULL);
    const steer_limits small[] = {LIMITS(1, 64, 64), LIMITS(2, 64, 1)};
    prompt[2] = 0;
    for (int i = 0; i < 2; i++) {
        c = steer_context_new(m, &small[i], &e);
        job =
            (steer_job){.prompt = prompt, .n_prompt = 6, .max_new = 4, .out = out, .plan = plan_of(&frozen)};
        CHECK_THAT(steer_generate(c, &job, 1, NULL, NULL, &e) == STEER_EARG &&
                       strstr(e.text, "freez"),
                   "%s", e.text);
        steer_context_free(c);
    }
    config->eot[0] = eot;
    free(v);
}
/* Means do not depend on how prompts share their beginnings; with a sign, those of that sign
 * count. */
static void test_means(void) {
    image f = small_image(F32, 0);
    steer_model *m = open_image(&f);
    steer_error e = {0};
    steer_prompts p = {0};
    if (!m) return;
    steer_limits l = {.streams = 16, .positions = 64, .rows = 64};
    steer_context *c = steer_context_new(m, &l, &e);
    size_t n = 3 * (size_t)m->eoi * m->config.layers * m->config.d;
    static const char *const texts[] = {
        "a thing\n",  "a thing\na thing\na thing\na thing\n", "one\n", "two\n", "three\n",
        "one hand\n", "one\ntwo\nthree\none hand\n"};
    enum { TEXTS = sizeof texts / sizeof *texts };
    double *mean[TEXTS], *expected = zeros(n, sizeof(double)), score[TEXTS], off = 0;
    for (int k = 0; k < TEXTS; k++) {
        mean[k] = zeros(n, sizeof(double));
        CHECK_THAT(!load_text(&p, m, texts[k], strlen(texts[k]), 0, &e), "%s", e.text);
        CHECK_THAT(steer_means(c, &p, 0, mean[k], &score[k], &e) == p.n, "%s", e.text);
        memcpy(expected, mean[k], n * sizeof *expected);
        CHECK_THAT(steer_means(c, &p, 0, mean[k], NULL, &e) == p.n && /* the old content is gone */
                       !memcmp(expected, mean[k], n * sizeof *expected),
                   "a second call on the same array gives another mean");
        if (k + 1 < TEXTS) steer_prompts_free(&p);
    }
    for (size_t i = 0; i < n; i++) off = fmax(off, fabs(mean[0][i] - mean[1][i]));
    CHECK_THAT(off < 1e-12, "the mean over the same prompt four times is off by %.3g", off);
    off = 0;
    for (size_t i = 0; i < n; i++)
        off = fmax(off, fabs((mean[2][i] + mean[3][i] + mean[4][i] + mean[5][i]) / 4 - mean[6][i]));
    CHECK_THAT(off < 1e-6, "the mean over four prompts is off by %.3g from that of each alone",
               off);
    CHECK_THAT(fabs((score[2] + score[3] + score[4] + score[5]) / 4 - score[6]) < 1e-9,
               "mean score %g", score[6]);
    for (int sign = -1; sign <= 1; sign += 2) {
        int wanted = 0;
        double *got = zeros(n, sizeof *got), total = 0;
        memset(expected, 0, n * sizeof *expected);
        for (int k = 2; k < 6; k++)
            if (sign * score[k] > 0) {
                wanted++;
                for (size_t i = 0; i < n; i++) expected[i] += mean[k][i];
            }
        CHECK_THAT(steer_means(c, &p, sign, got, &total, &e) == wanted, "sign %d: %s", sign,
                   e.text);
        off = 0;
        for (size_t i = 0; i < n && wanted; i++)
            off = fmax(off, fabs(expected[i] / wanted - got[i]));
        CHECK_THAT(off < 1e-6 && fabs(total - score[6]) < 1e-9, "sign %d, %d prompts: off by %.3g",
                   sign, wanted, off);
        free(got);
    }
    for (int k = 0; k < TEXTS; k++) free(mean[k]);
    free(expected), steer_prompts_free(&p), steer_context_free(c), steer_close(m), free(f.bytes);
}

/* ---------------------------------------------------------------- command line */

static char shown[1 << 16], complained[1 << 14];
static void read_text(const char *path, char *text, size_t cap) {
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, cap - 1, f) : 0;
    text[n] = 0;
    if (f) fclose(f);
}
/* Run a program; its exit status, or 256 + the signal that ended it. */
static int run_program(const char *program, const char *arguments, const char *input) {
    char command[2048];
    write_bytes(in_temporary("in"), input, strlen(input));
    snprintf(command, sizeof command, "%s %s <%s/in >%s/out 2>%s/err", program, arguments,
             temporary, temporary, temporary);
    fflush(stdout);
    int status = system(command);
    read_text(in_temporary("out"), shown, sizeof shown),
        read_text(in_temporary("err"), complained, sizeof complained);
    if (strstr(complained, "Sanitizer") || strstr(complained, "runtime error"))
        CHECK_THAT(0, "%s %s:\n%.1500s", program, arguments, complained);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}
static int lines_of(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}
static void test_command_line(void) {
    static const char box[] = "weights/tiny-llama.bin";
    steer_error e = {0};
    steer_model *m = open_or_fail(box);
    CHECK_THAT(exists(PROGRAM), "%s is missing: `make test` builds it", PROGRAM);
    if (!m || !exists(PROGRAM)) return;
    steer_vector v = random_dim(m, 3);
    v.layer = 3;
    char dir[64], arguments[1024];
    snprintf(dir, sizeof dir, "%s", temporary);
    CHECK_THAT(!steer_vector_save(&v, in_temporary("v.vec"), &e), "%s", e.text);
    char *half = malloc(m->size / 2);
    memcpy(half, m->bytes, m->size / 2);
    write_bytes(in_temporary("cut.bin"), half, m->size / 2);
    write_bytes(in_temporary("empty.bin"), "", 0);
    write_bytes(in_temporary("prompts.txt"), "How do I bake a cake?\nHow do I fly?\n", 36);
    free(half);

    /* 2: the command was not understood; 1: it could not be done. %s is the folder for temporary
     * files. */
    static const struct {
        int status;
        const char *arguments, *word;
    } refused[] = {
        {2, "", "command"},
        {2, "frobnicate", "no such command"},
        {2, "info", "model"},
        {2, "generate", "model"},
        {2, "reproduce", "model"},
        {2, "info --frobnicate weights/tiny-llama.bin", "option"},
        {2, "generate weights/tiny-llama.bin", "prompt"},
        {2, "tokenize weights/tiny-llama.bin", "text"},
        {2, "generate weights/tiny-llama.bin --prompts %s/prompts.txt --system x", "--system"},
        {2, "evaluate weights/tiny-llama.bin --vector %s/v.vec --site 1,-1", "--site"},
        {2, "freeze weights/tiny-llama.bin --vector %s/v.vec --circuit x", "--circuit"},
        {2, "vector weights/tiny-llama.bin", "--out"},
        {2, "generate weights/tiny-llama.bin x --max-new many", "--max-new"},
        {2, "generate weights/tiny-llama.bin x --max-new 0", "--max-new"},
        {2, "generate weights/tiny-llama.bin x --max-new -3", "--max-new"},
        {2, "generate weights/tiny-llama.bin x --max-new 1e12", "--max-new"},
        {2, "generate weights/tiny-llama.bin x --max-new", "value"},
        {2, "generate weights/tiny-llama.bin x --temp nan", "--temp"},
        {2, "generate weights/tiny-llama.bin x --top-p 1.5", "--top-p"},
        {2, "generate weights/tiny-llama.bin x --seed -1", "--seed"},
        {2, "generate weights/tiny-llama.bin x --coeff 1", "vector"},
        {2, "generate weights/tiny-llama.bin x --freeze v", "vector"},
        {2, "generate weights/tiny-llama.bin x --vector %s/v.vec --freeze w", "--freeze"},
        {2, "generate weights/tiny-llama.bin x --vector %s/v.vec --remove v", "--remove"},
        {2, "generate weights/tiny-llama.bin x --vector %s/v.vec --coeff x", "--coeff"},
        {2, "generate weights/tiny-llama.bin x --vector %s/v.vec --coeff inf", "--coeff"},
        {2, "generate weights/tiny-llama.bin x --vector %s/v.vec --ablate twice", "--ablate"},
        {2, "reproduce weights/tiny-llama.bin --site 3", "--site"},
        {2, "reproduce weights/tiny-llama.bin --limit 0", "--limit"},
        {1, "info %s/missing.bin", "missing.bin"},
        {1, "info %s/cut.bin", "truncated"},
        {1, "info %s", "regular"},
        {1, "info /dev/null", "/dev/null"},
        {1, "info %s/empty.bin", "empty"},
        {1, "info README.md", "README.md"},
        {1, "info steer.c", "not a steer model"},
        {1, "chat %s/cut.bin", "truncated"},
        {1, "reproduce %s/missing.bin", "missing.bin"},
        {1, "reproduce weights/tiny-llama.bin --data %s", "harmful"},
        {1, "generate weights/tiny-llama.bin x --vector %s/missing.vec", "missing.vec"},
        {1, "generate weights/tiny-llama.bin x --vector steer.c", "not a steering vector"},
        {1, "generate weights/tiny-llama.bin x --vector %s", "can't be read"},
        {1, "generate weights/tiny-gemma.bin x --vector %s/v.vec", "fingerprint"},
        {2, "generate weights/tiny-llama.bin x --compare", "vector"},
        {1, "generate weights/tiny-llama.bin x --system Hi", "system"},
        {1, "generate weights/tiny-llama.bin --prompts %s/missing.txt", "missing.txt"},
        {1, "generate weights/tiny-llama.bin --prompts %s/empty.bin", "no prompts"},
        {1, "generate weights/tiny-llama.bin --prompts %s/prompts.txt --max-new 2 --jsonl %s/no/x",
         "no/x"},
        {1, "vector weights/tiny-llama.bin --train 8 --site 99,-1 --out %s/w.vec", "site"},
        {1, "vector weights/tiny-llama.bin --train 8 --site 3,-1 --out %s/no/w.vec", "no/w.vec"}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        snprintf(arguments, sizeof arguments, refused[i].arguments, dir, dir);
        int status = run_program(PROGRAM, arguments, "");
        CHECK_THAT(status == refused[i].status && strstr(complained, refused[i].word),
                   "`steer %s`: status %d, \"%.300s\"", arguments, status, complained);
        /* One line, after that of the memory that the experiments take. */
        CHECK_THAT(lines_of(complained) == 1 ||
                       (lines_of(complained) == 2 && strstr(complained, "of memory")),
                   "`steer %s`: %d lines: \"%.300s\"", arguments, lines_of(complained), complained);
    }
    CHECK_THAT(!exists(in_temporary("w.vec")) && !exists(in_temporary("w.vec.part")),
               "a vector was written all the same");
    /* Two things asked for of which only one can be done: not silently one of them. */
    snprintf(arguments, sizeof arguments,
             "generate %s x --max-new 2 --vector %s/v.vec --ablate zero --freeze v", box, dir);
    CHECK_THAT(run_program(PROGRAM, arguments, ""),
               "--ablate with --freeze: one of them is dropped without a word");

    static const struct {
        const char *arguments, *input, *words[3];
    } fine[] = {
        {"help", "", {"steer info", "steer generate"}},
        {"--help", "", {"steer info"}},
        {"info --verify weights/tiny-llama.bin", "", {"blocks", "right", "fingerprint"}},
        {"info weights/tiny-gemma.bin --verify", "", {"GeGLU", "right", "window"}},
        {"tokenize weights/tiny-llama.bin \"a cake\"", "", {"cake"}},
        {"tokenize weights/tiny-llama.bin --chat \"a cake\"", "", {"<bos>", "<assistant>"}},
        {"generate weights/tiny-llama.bin \"How do I bake a cake?\" --max-new 8", "", {"\n"}},
        {"generate weights/tiny-gemma.bin \"\" --max-new 8 --temp 1 --top-p 0.9 --seed 4",
         "",
         {"\n"}},
        {"generate weights/tiny-llama.bin --prompts %s/prompts.txt --max-new 4",
         "",
         {"> How do I fly?"}},
        {"generate weights/tiny-llama.bin hi --vector %s/v.vec --max-new 4 --compare",
         "",
         {"unsteered", "steered"}},
        {"generate weights/tiny-llama.bin hi --vector %s/v.vec --max-new 4 --freeze qk,v,mlp "
         "--coeff -2",
         "",
         {"\n"}},
        {"generate weights/tiny-llama.bin hi --vector %s/v.vec --max-new 4 --remove svv,mlp-direct",
         "",
         {"\n"}},
        {"generate weights/tiny-llama.bin hi --vector %s/v.vec --max-new 4 --ablate mean",
         "",
         {"\n"}},
        {"chat weights/tiny-llama.bin --vector %s/v.vec --max-new 4",
         "hi\n/coeff -2\nand you?\n/freeze v\nwho?\n/freeze off\n/freeze "
         "x\n/reset\n/what\n\n/coeff 0\nhi\n/quit\nno\n",
         {"/coeff X"}},
        {"chat weights/tiny-gemma.bin --max-new 4", "hi", {"\n"}},
        {"vector weights/tiny-llama.bin --train 8 --site 3,-1 --coeff 2 --out %s/made.vec",
         "",
         {"block 3, position -1"}},
        {"generate weights/tiny-llama.bin hi --vector %s/made.vec --max-new 4", "", {"\n"}}};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        snprintf(arguments, sizeof arguments, fine[i].arguments, dir);
        int status = run_program(PROGRAM, arguments, fine[i].input);
        CHECK_THAT(status == 0, "`steer %s`: status %d, \"%.300s\"", arguments, status, complained);
        for (int k = 0; k < 3 && fine[i].words[k]; k++)
            CHECK_THAT(strstr(shown, fine[i].words[k]), "`steer %s` does not say \"%s\":\n%.400s",
                       arguments, fine[i].words[k], shown);
    }
    /* Answers as JSON lines. */
    snprintf(arguments, sizeof arguments,
             "generate %s --prompts %s/prompts.txt --max-new 4 --jsonl %s/out.jsonl", box, dir,
             dir);
    int status = run_program(PROGRAM, arguments, "");
    read_text(in_temporary("out.jsonl"), shown, sizeof shown);
    CHECK_THAT(!status && lines_of(shown) == 2 &&
                   strstr(shown, "{\"prompt\": \"How do I fly?\", \"ids\": ["),
               "%.400s", shown);
    steer_vector_free(&v), steer_close(m);
}
static void show_side_by_side(void *text) {
    if (!freopen("/dev/null", "w", stdout)) return;
    print_columns(text, "short");
}
static void test_side_by_side(void) {
    char text[200], *const texts[] = {"", " ", "\n", "a\n\nb", text};
    for (int k = 0; k < 5; k++) { /* a long word, long broken UTF-8, spaces */
        memset(text, "x\x80 \xE2\n"[k], sizeof text - 1), text[sizeof text - 1] = 0;
        const char *why = in_child(show_side_by_side, texts[4], 5);
        CHECK_THAT(!why, "200 times byte %d: %s", text[0] & 255, why);
        why = in_child(show_side_by_side, texts[k], 5);
        CHECK_THAT(!why, "text %d: %s", k, why);
    }
}
/* Shards run side by side by xargs, joined, print what one run prints, byte for byte; a store cut
 * short is mended by the run that goes on; what does not fit is refused and leaves nothing. */
static void test_shards(void) {
    static const char set[] = "--limit 5 --patch 1 --exact 0 --max-new 8";
    static char whole[sizeof shown];
    char arguments[512], script[2048];
    const char *const model = "weights/tiny-gemma.bin", *const t = temporary;
    snprintf(arguments, sizeof arguments, "vector %s --train 12 --out %s/v",
             model, t);
    CHECK_THAT(!run_program(PROGRAM, arguments, ""), "vector: %s", complained);
    snprintf(arguments, sizeof arguments, "patch %s --vector %s/v %s", model, t, set);
    CHECK_THAT(!run_program(PROGRAM, arguments, ""), "patch: %s", complained);
    memcpy(whole, shown, sizeof whole);
    CHECK_THAT(strstr(whole, "complete"), "patch prints no table: %.200s", whole);
    snprintf(script, sizeof script,
             "printf '1\\n2\\n3\\n' | OMP_NUM_THREADS=1 xargs -P 3 -I@ %s %s --shard @/3 --store "
             "%s/part@ >%s/shards 2>&1",
             PROGRAM, arguments, t, t);
    CHECK_THAT(!system(script), "xargs fails");
    snprintf(script, sizeof script, "merge %s/part1 %s/part2 %s/part3 --out %s/all", t, t, t, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "merge: %s", complained);
    snprintf(script, sizeof script, "%s --store %s/all", arguments, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "from the store: %s", complained);
    CHECK_THAT(!strcmp(whole, shown), "the merged run prints something else:\n%.600s", shown);
    static char bytes[1 << 22];
    FILE *f = fopen(in_temporary("all"), "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (f) fclose(f);
    CHECK_THAT(n > 1000 && n < sizeof bytes, "a store of %zu bytes", n);
    write_bytes(in_temporary("cut"), bytes, n - 77); /* a run that was killed while it wrote */
    snprintf(script, sizeof script, "%s --store %s/cut", arguments, t);
    CHECK_THAT(!run_program(PROGRAM, script, "") && strstr(complained, "bytes are cut off"),
               "from a cut store: %s", complained);
    CHECK_THAT(!strcmp(whole, shown), "from a cut store: another result");
    /* An answer of a million tokens, its checksums right: refused, not believed. */
    record_head h;
    for (size_t at = sizeof(store_head); at + sizeof h <= n; at += sizeof h + 8 * (size_t)h.n) {
        double first = 1e6;
        memcpy(&h, bytes + at, sizeof h);
        if (h.n != 10) continue; /* 2 + --max-new numbers: an answer */
        memcpy(bytes + at + sizeof h, &first, sizeof first);
        h.crc = crc32_of(0, bytes + at + sizeof h, 80);
        h.head_crc = crc32_of(0, &h, offsetof(record_head, head_crc));
        memcpy(bytes + at, &h, sizeof h);
    }
    write_bytes(in_temporary("unsound"), bytes, n);
    snprintf(script, sizeof script, "%s --store %s/unsound", arguments, t);
    CHECK_THAT(run_program(PROGRAM, script, "") == 1 && strstr(complained, "--store"),
               "an unsound store: %s", complained);
    /* A part that is not there: nothing is made of the others, nor in its place. */
    snprintf(script, sizeof script, "merge %s/part1 %s/part9 --out %s/none", t, t, t);
    CHECK_THAT(run_program(PROGRAM, script, "") == 1 && strstr(complained, "part9") &&
                   access(in_temporary("none"), F_OK) && access(in_temporary("part9"), F_OK),
               "a part that is not there: %s", complained);
    /* Two models share a store; the second time all is in it. */
    snprintf(script, sizeof script, "reproduce weights/tiny-llama.bin %s --quick --limit 4 --val 4 "
             "--train 8 --map 0 --patch 1 --exact 0 --max-new 8 --store %s/both", model, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "two models: %s", complained);
    memcpy(whole, shown, sizeof whole);
    free(read_file(in_temporary("both"), &n, NULL));
    size_t first = n;
    CHECK_THAT(!run_program(PROGRAM, script, ""), "two models again: %s", complained);
    free(read_file(in_temporary("both"), &n, NULL));
    CHECK_THAT(!strcmp(whole, shown) && n == first && n > 1000, "%zu bytes, then %zu", first, n);
    static const char *const wrong[][2] = {{"--shard 4/3 --store %s/x", "--shard"},
                                           {"--shard 1/2", "--store"},
                                           {"--store %s/v", "store"},
                                           {"--max-mem 1", "max-mem"},
                                           {"--metric entropy", "--metric"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char option[256];
        snprintf(option, sizeof option, wrong[i][0], t);
        snprintf(script, sizeof script, "%s %s", arguments, option);
        int status = run_program(PROGRAM, script, "");
        CHECK_THAT((status == 1 || status == 2) && strstr(complained, wrong[i][1]),
                   "%s: status %d, %.200s", option, status, complained);
    }
    snprintf(script, sizeof script, "patch weights/tiny-llama.bin --vector %s/v", t);
    CHECK_THAT(run_program(PROGRAM, script, "") == 1 && strstr(complained, "fit"),
               "a vector of another model: %s", complained);
}
/* A circuit's file: the smallest circuit goes into it and comes out as faithful; another model's,
 * one with an edge that is none, without edges, or of something else is refused. */
static void test_circuit_files(void) {
    static const char set[] = "--limit 6 --patch 2 --max-new 12";
    const char *const t = temporary, *found;
    char arguments[512], script[1024], text[1 << 16];
    steer_error e = {0};
    size_t n;
    snprintf(arguments, sizeof arguments,
             "vector weights/tiny-gemma.bin --train 12 "
             "--out %s/cv",
             t);
    CHECK_THAT(!run_program(PROGRAM, arguments, ""), "vector: %s", complained);
    snprintf(arguments, sizeof arguments, "circuit weights/tiny-gemma.bin --vector %s/cv %s", t,
             set);
    snprintf(script, sizeof script, "%s --exact 0 --out %s/circuit", arguments, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "circuit: %s", complained);
    found = strstr(shown, "smallest circuit of DIM with faithfulness 0.85: ");
    int edges = found ? atoi(found + 48) : 0;
    char *file = read_file(in_temporary("circuit"), &n, &e);
    CHECK_THAT(file && edges > 0 && lines_of(file) == edges + 1, "%d edges in %s", edges, file);
    snprintf(script, sizeof script, "%s --circuit %s/circuit", arguments, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "from the file: %s", complained);
    found = strstr(shown, "faithfulness of the circuit in ");
    found = found ? strstr(found, ": ") : NULL;
    double F = found ? atof(found + 2) : 0;
    CHECK_THAT(F >= 0.849 && F < 1.2, "faithfulness %g", F);
    /* Half the edges, the graph's first ones, carry less. */
    char *half = file;
    for (int i = 0; i < edges / 2 && half; i++) half = strchr(half, '\n') + 1;
    if (half) write_bytes(in_temporary("half"), file, (size_t)(half - file));
    snprintf(script, sizeof script, "%s --circuit %s/half", arguments, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "half: %s", complained);
    found = strstr(shown, "faithfulness of the circuit in ");
    found = found ? strstr(found, ": ") : NULL;
    CHECK_THAT(found && atof(found + 2) < 0.7 * F, "half of the edges carry %.8s", found);
    static const struct { const char *from, *to, *word; } faults[] = {
        {"block 1", "block 2", "another graph"}, {"steer circuit ", NULL, "another graph"},
        {"\n", "\n-1 ", "line 2"}, {"\n", "\n99999999 x\n", "line 2"}, {"\n", "\nx", "line 2"},
        {"steer ", "", "not a circuit file"}, {" block", "", "not a circuit file"}};
    for (size_t i = 0; i < sizeof faults / sizeof *faults && file; i++) {
        const char *at = strstr(file, faults[i].from);
        CHECK_THAT(at != NULL, "fault %zu", i);
        if (!at) continue;
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - file), file,
                 faults[i].to ? faults[i].to : "", at + strlen(faults[i].from));
        if (!faults[i].to) { /* another model: one digit of its fingerprint */
            snprintf(text, sizeof text, "%s", file);
            char *digit = text + strlen(faults[i].from);
            *digit = *digit == '0' ? '1' : '0';
        }
        write_bytes(in_temporary("wrong"), text, strlen(text));
        snprintf(script, sizeof script, "%s --circuit %s/wrong", arguments, t);
        CHECK_THAT(run_program(PROGRAM, script, "") == 1 && strstr(complained, faults[i].word),
                   "fault %zu: %.200s", i, complained);
    }
    if (file) write_bytes(in_temporary("wrong"), file, strcspn(file, "\n") + 1);
    snprintf(script, sizeof script, "%s --circuit %s/wrong", arguments, t);
    CHECK_THAT(run_program(PROGRAM, script, "") == 1 && strstr(complained, "without edges"),
               "no edges: %.200s", complained);
    snprintf(script, sizeof script, "%s --circuit %s/missing", arguments, t);
    CHECK_THAT(run_program(PROGRAM, script, "") == 1 && strstr(complained, "missing"),
               "no file: %.200s", complained);
    free(file);
}
/* A short reproduction, as text and as JSON: every table is there, every number is one. */
static void test_reproduce(void) {
    if (!exists(PROGRAM)) {
        CHECK_THAT(0, "%s is missing: `make test` builds it", PROGRAM);
        return;
    }
    static const char *const models[] = {"weights/tiny-llama.bin", "weights/tiny-gemma.bin"};
    static const char *const words[] = {"Steering",    "Freezing",        "Dose",
                                        "Site map",    "patterns frozen", "values frozen",
                                        "SVV removed", "perpl",           "judge",
                                        "random vectors", "(the model file's; ",
                                        "the reported site, block 1", "does not pass the rule ("};
    char arguments[512];
    for (int k = 0; k < 2; k++) {
        snprintf(arguments, sizeof arguments,
                 "reproduce %s --train 12 --limit 3 --val 4 --map %d --max-new 12 --patch 1 "
                 "--exact 0 %s",
                 models[k], 1 - k, k ? "--pairs 6 --epochs 1 --json" : "--quick");
        int status = run_program(PROGRAM, arguments, "");
        CHECK_THAT(status == 0, "`steer %s`: status %d, \"%.300s\"", arguments, status, complained);
        CHECK_THAT(!strstr(shown, "nan") && !strstr(shown, "inf,"),
                   "`steer %s` prints what is no number", arguments);
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            CHECK_THAT(strstr(shown, words[i]) || (k && i == 3), "`steer %s` does not say \"%s\"",
                       arguments, words[i]);
        int depth = 0, in_string = 0;
        for (const char *s = shown; *s && k; s++) {
            if (*s == '"' && s[-1] != '\\') in_string = !in_string;
            if (!in_string) depth += (*s == '[' || *s == '{') - (*s == ']' || *s == '}');
            CHECK_THAT(depth >= 0, "JSON closes more than it opens");
        }
        CHECK_THAT(!depth && !in_string, "JSON ends with %d open brackets", depth);
    }
}
/* A model without an answer grammar is none of the box: the freezing tables, all with --patch. Where
 * the coefficient is too small for any site to steer, the map is empty. */
static void test_brief(void) {
    char *argument[] = {"weights/tiny-llama.bin", NULL};
    for (int all = 0; all < 2; all++) {
        steer_error e = {0};
        report out = {0};
        int freezing = 0, patching = 0;
        options o = standard_options();
        experiment s = {.m = open_or_fail(*argument), .out = &out, .e = &e, .stages = EVERYTHING};
        steer_model *m = (steer_model *)(uintptr_t)s.m;
        if (!m) return;
        m->grammar_size = 0, s.path = *argument;
        o.train = 12, o.limit = 3, o.val = 4, o.map = 0, o.max_new = 8, o.pairs = 4, o.epochs = 1;
        if (all) o.patch = 1;
        else o.map = 1, o.coeff = 0.01;
        CHECK_THAT(!prepare_paper(&s, &o) && !command_paper(&s, &o), "%s", e.text);
        for (size_t i = 0; i < n_entries(&out); i++) {
            const entry *t = AT(out.entries, entry, i);
            freezing += t->kind == IS_TABLE && !strcmp(t->name, "freezing");
            patching += t->kind == IS_TABLE && !strcmp(t->name, "patching");
        }
        CHECK_THAT(freezing == 1 && patching == all, "%d tables of freezing, %d of patching",
                   freezing, patching);
        clear_experiment(&s), free_report(&out), steer_close(m);
    }
}
static void test_user(void) {
    steer_error e = {0};
    steer_model *m = open_or_fail("weights/tiny-llama.bin");
    CHECK_THAT(exists(USER_PROGRAM), "%s is missing: `make test` builds it", USER_PROGRAM);
    if (!m || !exists(USER_PROGRAM)) return;
    steer_vector v = random_dim(m, 3);
    v.layer = 3, v.coeff = 2;
    char arguments[256], plain[1024];
    CHECK_THAT(!steer_vector_save(&v, in_temporary("v.vec"), &e), "%s", e.text);
    snprintf(arguments, sizeof arguments, "weights/tiny-llama.bin \"How do I bake a cake?\"");
    int status = run_program(USER_PROGRAM, arguments, "");
    snprintf(plain, sizeof plain, "%.1000s", shown);
    CHECK_THAT(!status && strlen(plain) > 1 && !*complained, "status %d: \"%s\", \"%s\"", status,
               plain, complained);
    int same = run_program(
        PROGRAM, "generate weights/tiny-llama.bin \"How do I bake a cake?\" --max-new 64 --quiet",
        "");
    CHECK_THAT(!same && !strcmp(shown, plain), "the program answers \"%s\", its user \"%s\"", shown,
               plain);
    snprintf(arguments, sizeof arguments,
             "weights/tiny-llama.bin \"How do I bake a cake?\" %s/v.vec", temporary);
    status = run_program(USER_PROGRAM, arguments, "");
    CHECK_THAT(!status && strcmp(shown, plain), "steered, status %d: \"%s\", \"%s\"", status, shown,
               complained);
    CHECK_THAT(run_program(USER_PROGRAM, "steer.c x", "") == 1 && lines_of(complained) == 1,
               "\"%s\"", complained);
    steer_vector_free(&v), steer_close(m);
}

#include "paper.inc.c"
#include "output.inc.c"
#include "files.inc.c"
#include "program.inc.c"
#include "arguments.inc.c"
#include "options.inc.c"
#include "store.inc.c"
#include "verdicts.inc.c"

typedef struct {
    const char *name;
    void (*run)(void);
    const char *what;
} test;
static const test tests[] = {
    {"golden-random", test_golden_random, "logits of random models equal PyTorch's"},
    {"golden-box", test_golden_box, "logits of the models in the box equal PyTorch's"},
    {"golden-exact", test_golden_exact, "and PyTorch's in float64"},
    {"golden-dim", test_golden_dim, "DIM vectors and their scores equal PyTorch's"},
    {"golden-patch", test_golden_patch, "gradients, patching and circuits equal PyTorch's"},
    {"golden-train", test_golden_train, "training, value vectors, sparse vectors equal PyTorch's"},
    {"golden-tokens", test_golden_tokens, "token ids equal those of the tokenizers library"},
    {"golden-split", test_golden_split, "so do the pieces of both pre-tokenizer rules"},
    {"matmul", test_matmul, "the blocked product equals a double loop"},
    {"functions", test_functions, "exp, tanh, softmax, rope, norms, gates, caps"},
    {"round-trips", test_round_trips, "decoding gives back any bytes; look-alikes stay text"},
    {"linear-time", test_linear_time, "tokenizing takes time in proportion to the text"},
    {"normal-form", test_normal_form, "Unicode normal form C"},
    {"small-files", test_small_files, "small models open; a changed weight is found"},
    {"truncations", test_truncations, "every truncation of a model file is refused"},
    {"bit-flips", test_bit_flips, "flipped bits are refused; with a true checksum nothing breaks"},
    {"boundaries", test_boundaries, "values at which sizes overflow, in every field"},
    {"not-finite", test_not_finite, "weights that are no numbers end a run"},
    {"read-into-memory", test_read_into_memory, "a model read into memory needs its file no more"},
    {"no-mmap", test_no_mmap, "a conversation with --no-mmap outlives its file"},
    {"overflows", test_overflows, "two files that led outside of arrays are refused"},
    {"promises", test_promises, "what later code relies on is refused where it is broken"},
    {"callers-numbers", test_callers_numbers, "the ends of an int, refused before they overflow"},
    {"stack", test_stack, "what steer.h says that a thread needs is enough"},
    {"fast-math", test_fast_math, "-Ofast and -ffast-math are refused, with what to type"},
    {"vector-files", test_vector_files, "vectors come back; broken ones and others' are refused"},
    {"prompts", test_prompts, "prompt files of every form, good and bad"},
    {"judging", test_judging, "refusals, coherence, intervals, repetition, log-odds, KL"},
    {"same-bits", test_same_bits, "bits do not depend on threads, batch or split"},
    {"more-threads", test_more_threads, "more threads than when the context was made"},
    {"batches", test_batches, "many jobs in one walk equal each alone, shared prefixes too"},
    {"equal-plans", test_equal_plans, "no plan, own twin, whole span, fork: the same bits"},
    {"identities", test_identities, "ablation, addition and freezing do what they say"},
    {"edit-lists", test_edit_lists, "plans said in two ways; edits at some positions, in two blocks"},
    {"plan-errors", test_plan_errors, "every wrong plan, row or size has its message"},
    {"generation", test_generation, "ends, samples, limits"},
    {"means", test_means, "means over prompts that begin alike"},
    {"command-line", test_command_line, "exit statuses and messages of ./steer"},
    {"unused-options", test_unused_options, "an option that a command does not use is refused"},
    {"numbers", test_numbers, "whole numbers are whole; nothing is cut, nan, hexadecimal"},
    {"refused-lines", test_refused_lines, "what is misspelt, missing, stray or without effect"},
    {"nothing-steered", test_nothing_steered, "coefficient 0 is unsteered; zeros are no vector"},
    {"brief-options", test_brief_options, "options of stages that do not run are refused"},
    {"help", test_help, "the help of each command lists what it takes"},
    {"documents", test_documents, "README's command lines and options are the program's"},
    {"threads", test_threads, "one start anew, the same bytes; processors and policy respected"},
    {"quota", test_quota, "a container's quota of processors"},
    {"busy-machine", test_busy_machine, "the default threads beside busy processes"},
    {"side-by-side", test_side_by_side, "two texts in two columns, whatever their bytes"},
    {"kernels-back", test_kernels_back, "each kernel's backward against central differences"},
    {"backward-whole", test_backward_whole,
     "completeness, sums of edges, heads and groups, threads"},
    {"circuits", test_circuits, "empty, full, pruned, selected, complementary circuits"},
    {"patterns", test_patterns, "attention patterns of a tape; scores, as many as are asked for"},
    {"value-vectors", test_value_vectors, "what removing the vector takes from a head (6.6)"},
    {"sparse", test_sparse, "which dimensions stay, and what chance would keep"},
    {"training", test_training, "training lowers the loss; the seed decides the bits"},
    {"patch-errors", test_patch_errors, "wrong plans and examples of patching"},
    {"report", test_report, "the JSON is well formed, in a page too, and escapes its text"},
    {"page", test_page, "a report's page is joined with it, and missed before the work"},
    {"circuit-files", test_circuit_files,
     "a circuit's file is read back, and refused where it does not fit"},
    {"store", test_store, "records are found again, by many keys, by the next run"},
    {"store-damage", test_store_damage, "flipped bits, cut and lost pieces: refused and counted"},
    {"store-owner", test_store_owner, "one process writes a store; what is none is refused"},
    {"store-answers", test_store_answers, "answers are kept as they are made"},
    {"merge", test_merge, "stores are joined whole or not at all; parts are only read"},
    {"kill-reproduce", test_kill_reproduce, "kill -9 changes no output of the run that goes on"},
    {"kill-merge", test_kill_merge, "kill -9 leaves no half-merged store"},
    {"shards", test_shards, "shards run side by side print what one run prints"},
    {"reproduce", test_reproduce, "a short reproduction prints its tables"},
    {"whole-paper", test_whole_paper,
     "a model without a grammar goes the whole way; its pairs, token for token"},
    {"brief", test_brief, "of another model the freezing tables, with --patch everything"},
    {"odd-arguments", test_odd_arguments, "arguments that a caller can give by mistake"},
    {"output-files", test_output_files, "files whole or not at all; links, pipes, modes, signals"},
    {"dead-output", test_dead_output, "a full disk or a closed pipe ends every command with 1"},
    {"dev-stdout", test_dev_stdout, "--out /dev/stdout writes there and replaces nothing"},
    {"found-early", test_found_early, "what is wrong is found before the work, nothing is touched"},
    {"interrupted", test_interrupted, "answers are written as they come, in whole lines"},
    {"terminal", test_terminal, "no control character of others reaches a terminal"},
    {"intervals", test_intervals, "intervals equal those of statsmodels, scipy and the literature"},
    {"coverage", test_coverage, "95% intervals hold the truth 93 times in 100 or more"},
    {"losses", test_losses, "losses, shares and changes of answers made by hand"},
    {"verdicts", test_verdicts, "every verdict: holds, in part, fails, can't be told"},
    {"judges", test_judges, "what judges a circuit chose none"},
    {"controls", test_controls, "random vectors do not steer; ten random circuits are ten"},
    {"user", test_user, "a program that links the library"},
};
int main(int argc, char **argv) {
    int passed = 0, failed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0); /* what came before a crash is seen */
    signal(SIGINT, SIG_DFL); /* a shell's background jobs begin with it ignored, nohup's with SIGHUP */
    signal(SIGHUP, SIG_DFL);
    if (!mkdtemp(temporary)) return perror(temporary), 1;
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        int wanted = argc < 2;
        for (int k = 1; k < argc; k++) wanted |= !strcmp(argv[k], tests[i].name);
        if (!wanted) continue;
        double started = seconds();
        checks_failed = 0;
        snprintf(test_name, sizeof test_name, "%s", tests[i].name);
        set_threads(1); /* the models here are small */
        tests[i].run();
        printf("%s %-14s %s (%.1f s)\n", checks_failed ? "FAIL" : "ok  ", tests[i].name,
               tests[i].what, seconds() - started);
        fflush(stdout);
        passed += !checks_failed, failed += !!checks_failed;
    }
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", temporary);
    if (system(command)) printf("%s is left\n", temporary);
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}

/* The engine: kernels, logits under every plan, the same bits in every batch, generation, means. */

/* ---------------------------------------------------------------- logits against PyTorch */

typedef struct { /* one case of a golden file, as far as it has been read */
    char name[128];
    steer_model *m;
    int own; /* made from random numbers, not opened */
    int tokens[512], n_tokens;
    float *vector, *keep;
    changes plan;
} golden;

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
    if (!c || n != vocab)
        return;
    steer_job job = {.prompt = g->tokens, .n_prompt = g->n_tokens};
    int count = put_rows(rows, &job, 0, twin ? 1 : -1, 0, g->n_tokens);
    rows[(pos + 1) * (1 + twin) - 1].logits = 1;
    changes plan = g->plan;
    if (twin)
        steer_begin(c, 1, NULL, -1, NULL, &e);
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
        if (plan.add || plan.ablate)
            CHECK_THAT(!check_hits(&plan.plan, plan.hits, &e), "%s: %s", g->name, e.text);
    }
    steer_context_free(c);
}

/* The same under a plan of edits at positions, where the answer begins at `answer`; the text runs
 * in two parts, as prompt and generation do. */
static void golden_where_logits(const golden *g, steer_plan plan, int answer, int pos,
                                const float *expected) {
    int twin = plan_has(&plan, STEER_FREEZE), n = g->n_tokens, row = 0;
    steer_limits l = {.streams = 2, .positions = n, .rows = 2 * n};
    steer_error e = {0};
    int64_t hits[4] = {0};
    steer_row rows[1024];
    steer_job job = {.prompt = g->tokens, .n_prompt = n};
    steer_context *c = steer_context_new(g->m, &l, &e);
    steer_status s = c ? STEER_OK : e.code;
    if (!s && twin)
        s = steer_begin(c, 1, NULL, -1, NULL, &e);
    if (!s)
        s = steer_begin(c, 0, &plan, twin ? 1 : -1, hits, &e);
    if (!s)
        c->streams[0].answer = answer;
    const int ends[] = {0, min_int(answer, pos + 1), pos + 1};
    for (int half = 0; half < 2 && !s; half++) {
        int count = put_rows(rows, &job, 0, twin ? 1 : -1, ends[half], ends[half + 1]);
        if (!count)
            continue;
        row = count - 1;
        rows[row].logits = 1;
        s = steer_run(c, rows, count, NULL, &e);
    }
    CHECK_THAT(!s, "%s: %s", g->name, e.text);
    const float *logits = s ? NULL : steer_logits(c, row);
    double error = 0;
    for (int i = 0; i < g->m->config.vocab && logits; i++)
        error = fmax(error, fabs((double)logits[i] - (double)expected[i]));
    worst = fmax(worst, error);
    CHECK_THAT(error <= 1e-4, "%s: position %d: max abs error %.3g", g->name, pos, error);
    if (pos == n - 1)
        CHECK_THAT(!check_hits(&plan, hits, &e), "%s: %s", g->name, e.text);
    steer_context_free(c);
}

static int golden_file(const char *path, double tolerance) {
    golden_lines file = open_golden(path);
    golden g = {0};
    float *numbers = malloc(sizeof *numbers * 4096), last[24] = {0};
    steer_model *random = NULL; /* the last random model, kept while cases name it again */
    dtype last_type = F32;
    int cases = 0;
    worst = 0;
    while (golden_line(&file)) {
        const char *word = file.word, *rest = file.rest;
        if (!strcmp(word, "case")) {
            snprintf(g.name, sizeof g.name, "%s", rest + 1);
            memset(&g.plan, 0, sizeof g.plan);
            cases++;
        } else if (!strcmp(word, "model"))
            g.m = open_or_fail(rest + 1);
        else if (!strcmp(word, "random")) {
            float p[24] = {0};
            int given = parse_floats(rest, p, 24);
            CHECK_THAT(given == 21 || given == 23, "%s: a random model of %d numbers", g.name,
                       given);
            const char *type = golden_line(&file) ? file.rest : "";
            dtype t = strstr(type, "q8") ? Q8 : F32;
            if (strstr(type, "bf16"))
                t = BF16;
            steer_config c = random_config(p);
            if (!random || memcmp(p, last, sizeof p) || t != last_type) {
                free_random_model(random);
                random = random_model((int)p[0], (double)p[1], c, t);
            }
            memcpy(last, p, sizeof p);
            last_type = t;
            g.m = random;
            g.own = 1;
        } else if (!strcmp(word, "tokens"))
            g.n_tokens = parse_ints(rest, g.tokens, 512);
        else if (!strcmp(word, "vector")) {
            free(g.vector);
            g.vector = malloc(sizeof(float) * 4096);
            CHECK_THAT(parse_floats(rest, g.vector, 4096) == g.m->config.d,
                       "%s: a vector of another width", g.name);
        } else if (!strcmp(word, "add")) {
            sscanf(rest, "%d %f", &g.plan.layer, &g.plan.coeff);
            g.plan.add = g.vector;
        } else if (!strcmp(word, "ablate"))
            g.plan.ablate = g.vector;
        else if (!strcmp(word, "keep")) {
            free(g.keep);
            g.keep = malloc(sizeof(float) * 512);
            parse_floats(rest, g.keep, 512);
            g.plan.keep = g.keep;
        } else if (!strcmp(word, "freeze")) {
            g.plan.freeze = strstr(rest, "mlp") ? STEER_MLP : STEER_V;
            if (strstr(rest, "qk"))
                g.plan.freeze = STEER_QK;
        } else if (!strcmp(word, "remove"))
            g.plan.remove = strstr(rest, "svv") ? STEER_SVV : STEER_MLP_DIRECT;
        else if (!strcmp(word, "logits") && g.m) {
            char *end;
            int pos = (int)strtol(rest, &end, 10);
            golden_logits(&g, pos, numbers, parse_floats(end, numbers, 4096), tolerance);
        } else if (!strcmp(word, "end") && !g.own) {
            steer_close(g.m);
            g.m = NULL;
        } else if (!strcmp(word, "end"))
            g.own = 0;
    }
    free_random_model(random);
    free(numbers);
    free(g.vector);
    free(g.keep);
    printf("  %s: %d cases, largest error %.2g\n", path, cases, worst);
    CHECK_THAT(cases > 0, "%s: no cases", path);
    return cases;
}

static void test_golden_random(void) {
    golden_file("tests/golden/random.txt", 1e-4);
}

static void test_golden_box(void) {
    golden_file("tests/golden/box.txt", 1e-4);
}

static void test_golden_exact(void) {
    golden_file("tests/golden/exact64.txt", 1e-4);
}

/* Edits at some positions, in several blocks, each a line of the file. */
static void test_golden_where(void) {
    static const char *const names[] = {"", "add", "ablate", "freeze", "remove"};
    static const char *const parts[] = {"all", "prompt", "answer"};
    golden_lines file = open_golden("tests/golden/where.txt");
    golden g = {0};
    float *vectors[2] = {malloc(sizeof(float) * 4096), malloc(sizeof(float) * 4096)},
          last[24] = {0};
    float *numbers = malloc(sizeof *numbers * 4096);
    steer_edit edits[4];
    int n = 0, cases = 0, answer = 0;
    worst = 0;
    while (golden_line(&file)) {
        const char *word = file.word, *rest = file.rest;
        if (!strcmp(word, "case")) {
            snprintf(g.name, sizeof g.name, "%s", rest + 1);
            n = 0;
            cases++;
        } else if (!strcmp(word, "random")) {
            float p[24] = {0};
            parse_floats(rest, p, 24);
            CHECK_THAT(golden_line(&file) && strstr(file.rest, "f32"), "%s: no f32", g.name);
            if (!g.m || memcmp(p, last, sizeof p)) {
                free_random_model(g.m);
                g.m = random_model((int)p[0], (double)p[1], random_config(p), F32);
            }
            memcpy(last, p, sizeof p);
        } else if (!strcmp(word, "tokens"))
            g.n_tokens = parse_ints(rest, g.tokens, 512);
        else if (!strcmp(word, "prompt"))
            answer = (int)strtol(rest, NULL, 10);
        else if (!strcmp(word, "vector") || !strcmp(word, "second"))
            CHECK_THAT(parse_floats(rest, vectors[*word == 's'], 4096) == g.m->config.d,
                       "%s: a vector of another width", g.name);
        else if (!strcmp(word, "edit") && n < 4) {
            char kind[16], what[16], where[16];
            steer_edit x = {0};
            CHECK_THAT(sscanf(rest, "%15s %15s %d %15s %d %d %f", kind, what, &x.layer, where,
                              &x.from, &x.to, &x.coeff) == 7,
                       "%s: %s", g.name, rest);
            for (int k = STEER_ADD; k <= STEER_REMOVE; k++)
                if (!strcmp(names[k], kind))
                    x.kind = (steer_kind)k;
            for (int k = 0; k <= STEER_IN_ANSWER; k++)
                if (!strcmp(parts[k], where))
                    x.part = k;
            x.v = vectors[*what == '2'];
            x.what = x.kind == STEER_FREEZE ? STEER_MLP : STEER_MLP_DIRECT;
            if (*what == 'q')
                x.what = STEER_QK;
            if (*what == 'v')
                x.what = STEER_V;
            if (*what == 's')
                x.what = STEER_SVV;
            edits[n++] = x;
        } else if (!strcmp(word, "logits")) {
            char *end;
            int pos = (int)strtol(rest, &end, 10), vocab = g.m->config.vocab;
            CHECK_THAT(parse_floats(end, numbers, 4096) == vocab, "%s: logits", g.name);
            golden_where_logits(&g, (steer_plan){edits, n}, answer, pos, numbers);
        }
    }
    free_random_model(g.m);
    free(vectors[0]);
    free(vectors[1]);
    free(numbers);
    printf("  where: %d cases, max abs error %.3g\n", cases, worst);
    CHECK_THAT(cases == 50, "%d cases", cases);
}

/* ---------------------------------------------------------------- kernels */

static void test_matmul(void) {
    static const int sizes[][2] = {{1, 1},    {3, 5},    {17, 33},  {31, 64},   {33, 96},
                                   {64, 257}, {47, 300}, {5, 1056}, {100, 544}, {129, 31}};
    static const int counts[] = {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 23, 25, 30};
    double worst_error = 0;
    long different = 0;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (dtype type = F32; type <= Q8; type++) {
            int n = sizes[s][0], k = sizes[s][1];
            if (type == Q8 && k % 32)
                continue;
            weight w = random_matrix(50, (int)type, (int)s, n, k, 1, type);
            const float *x = random_vector(51, 0, (int)s, 30 * k, 0, 1);
            for (size_t t = 0; t < sizeof counts / sizeof *counts; t++) {
                int rows = counts[t];
                float *y = malloc(sizeof *y * (size_t)rows * (size_t)n + 4);
                y[rows * n] = 7;
                matmul(y, x, &w, rows);
                CHECK_THAT(y[rows * n] == 7, "%d rows of %d: writes behind the end", rows, n);
                for (int r = 0; r < rows; r++)
                    for (int j = 0; j < n; j++) {
                        double sum = 0, size = 1;
                        for (int i = 0; i < k; i++) {
                            double term =
                                (double)x[r * k + i] * (double)weight1(&w, (size_t)j, (size_t)i);
                            sum += term;
                            size += fabs(term);
                        }
                        worst_error = fmax(worst_error, fabs((double)y[r * n + j] - sum) / size);
                    }
                /* The order of sums: `dot` of the row and the weights as floats, whatever is
                     * computed beside it. */
                float *row = malloc(sizeof *row * (size_t)k);
                for (int j = 0; j < n; j++) {
                    unpack(row, &w, (size_t)j, 0, k);
                    for (int r = 0; r < rows; r++) {
                        float sum = dot(x + r * k, row, k);
                        different += memcmp(&sum, &y[r * n + j], sizeof sum) != 0;
                    }
                }
                free(row);
                free(y);
            }
            free((void *)w.data);
            free((void *)w.scale);
            free((void *)x);
        }
    printf("  matmul: largest error %.2g of the sum of magnitudes\n", worst_error);
    CHECK_THAT(worst_error < 1e-6, "%g", worst_error);
    CHECK_THAT(!different, "%ld outputs have other bits than dot", different);
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
        for (int i = 0; i < n; i++) {
            x[i] = y[i] = (float)(40 * random_unit(&dice) - 20);
            total += exp((double)x[i]);
        }
        for (int i = 0; i < n; i++)
            expected[i] = exp((double)x[i]) / total;
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
        for (int i = 0; i < 2 * half; i++)
            x[i] = y[i] = (float)(2 * random_unit(&dice) - 1);
        for (int i = 0; i < half; i++) {
            cosine[i] = cosf((float)i * 0.7f);
            sine[i] = sinf((float)i * 0.7f);
        }
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
            x[i] = (float)(2 * random_unit(&dice) - 1);
            ones[i] = (float)random_unit(&dice);
            square += (double)x[i] * (double)x[i];
        }
        double r = 1 / sqrt(square / n + 1e-5);
        float given = inverse_rms(x, n, 1e-5f);
        rmsnorm(y, x, ones, 0.5f, 1e-5f, n);
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

/* ---------------------------------------------------------------- the same bits */

enum { NO_PLAN, ADD, SPAN, FREEZE_QK, FREEZE_V, FREEZE_ALL, REMOVE, ABLATE, KEEP, PLANS };

static const char *const plan_names[] = {
    "no plan",         "add",        "add at positions 3 to 8", "freeze QK",
    "freeze V",        "freeze all", "remove SVV and MLP",      "ablate",
    "ablate to a mean"};

static changes test_plan(int kind, const float *v, const float *keep) {
    changes p = {0};
    if (kind == NO_PLAN)
        return p;
    if (kind >= ABLATE)
        return (changes){.ablate = v, .keep = kind == KEEP ? keep : NULL};
    p.add = v;
    p.coeff = 1.5f;
    p.layer = 1;
    if (kind == SPAN) {
        p.from = 3;
        p.to = 8;
    }
    if (kind == FREEZE_QK)
        p.freeze = STEER_QK;
    if (kind == FREEZE_V)
        p.freeze = STEER_V;
    if (kind == FREEZE_ALL)
        p.freeze = STEER_QK | STEER_V | STEER_MLP;
    if (kind == REMOVE)
        p.remove = STEER_SVV | STEER_MLP_DIRECT;
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
            CHECK_THAT(
                !steer_begin(c, s, s % 3 == 1 && s != twin ? plan_of(&second) : NULL, -1, NULL, &e),
                "%s", e.text);
    if (c)
        CHECK_THAT(
            !steer_begin(c, ours, kind ? plan_of(&plan) : NULL, frozen ? twin : -1, NULL, &e), "%s",
            e.text);
    for (int from = 0, to; from < n && c; from = to) {
        to = min_int(n, from + (from ? w.step : w.first));
        int count = 0, at = 0;
        for (int s = 0; s < streams; s++) {
            if (s == twin && !frozen)
                continue;
            if (s == ours)
                at = count;
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
    steer_context_free(c);
    free(rows);
    set_threads(1);
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
    for (int k = 0; k < TEST_MODELS; k++) {
        steer_model *m = test_model(k);
        size_t size = sizeof(float) * N * (size_t)m->config.vocab;
        float *expected = malloc(size), *plain = malloc(size), *got = malloc(size);
        const float *v = random_vector(80, 1, k, m->config.d, 0, 1);
        const float *keep = random_vector(80, 2, k, 3 * m->config.layers, 0, 1);
        dice = 10;
        random_tokens(tokens, N, m->config.vocab);
        for (int plan = 0; plan < PLANS; plan++) {
            run_way(m, plan, v, keep, tokens, N, (way){1, 0, N, N, "at once"}, expected);
            if (plan == NO_PLAN)
                memcpy(plain, expected, size);
            CHECK_THAT(!plan || memcmp(plain, expected, size), "%s, %s changes nothing",
                       model_names[k], plan_names[plan]);
            for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
                memset(got, 0, size);
                run_way(m, plan, v, keep, tokens, N, ways[i], got);
                CHECK_THAT(!memcmp(got, expected, size), "%s, %s: %s gives other bits",
                           model_names[k], plan_names[plan], ways[i].name);
            }
        }
        free(expected);
        free(plain);
        free(got);
        free((void *)v);
        free((void *)keep);
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
    for (int t = 0; t < N; t++)
        rows[t] = (steer_row){0, t, tokens[t], 1, 0};
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

/* ---------------------------------------------------------------- jobs */

/* What each job's logits were (as a checksum over its steps) beside the tokens it chose. */
typedef struct {
    generator g;
    uint32_t *sums;
} capture;

static int capture_visit(void *user, int job, int pos, const float *logits) {
    capture *c = user;
    c->sums[job] = crc32_of(c->sums[job], logits, sizeof *logits * (size_t)c->g.m->config.vocab);
    return generate_on_logits(&c->g, job, pos, logits);
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
    for (int i = 0; i < 4; i++)
        s->plans[i] = test_plan(kinds[i], v, NULL);
    dice = 12;
    for (int i = 0; i < JOBS; i++) {
        random_tokens(s->prompts[i], 24, m->config.vocab);
        for (int t = 0; t < 10; t++)
            s->prompts[i][t] = 3 + t;
        int plan = i < 6 ? 0 : 1 + (i - 6) / 4;
        s->jobs[i] = (steer_job){.prompt = s->prompts[i],
                                 .n_prompt = 11 + i * 5 % 13,
                                 .max_new = 1 + i % NEW,
                                 .plan = plan ? plan_of(&s->plans[plan]) : NULL,
                                 .out = s->out[i],
                                 .hits = s->hits[i]};
    }
}

static steer_status run_job_set(const steer_model *m, steer_limits l, job_set *s, int first, int n,
                                steer_error *e) {
    steer_context *c = steer_context_new(m, &l, e);
    if (!c)
        return e->code;
    capture seen = {{m, s->jobs + first, NULL, NULL, NULL}, s->sums + first};
    steer_status status = run_jobs(c, s->jobs + first, n, capture_visit, &seen, NULL, e);
    steer_context_free(c);
    return status;
}

static void test_batches(void) {
#define LIMITS(s, p, r)                         \
    {                                           \
        .streams = s, .positions = p, .rows = r \
    }
    static const steer_limits limits[] = {
        LIMITS(64, 32, 512), LIMITS(64, 32, 64), LIMITS(40, 32, 33), LIMITS(16, 32, 100),
        LIMITS(8, 32, 16),   LIMITS(5, 32, 9),   LIMITS(4, 30, 64),  LIMITS(3, 32, 7),
        LIMITS(2, 32, 32),   LIMITS(2, 30, 2),   LIMITS(12, 32, 3)};
    static job_set alone, together;
    for (int k = 0; k < TEST_MODELS; k++) {
        steer_model *m = test_model(k);
        const float *v = random_vector(81, 1, k, m->config.d, 0, 1);
        steer_error e = {0};
        make_jobs(&alone, m, v);
        int64_t steered = 0; /* rows, when no job shares anything */
        for (int i = 0; i < JOBS; i++) {
            CHECK_THAT(!run_job_set(m, (steer_limits)LIMITS(2, 32, 64), &alone, i, 1, &e), "%s",
                       e.text);
            if (alone.jobs[i].plan == &alone.plans[1].plan)
                steered += alone.hits[i][0];
        }
        CHECK_THAT(alone.jobs[5].n_out > 0 && alone.sums[0] != alone.sums[6] &&
                       alone.jobs[17].n_out > 0,
                   "answers");
        for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
            make_jobs(&together, m, v);
            steer_status s = run_job_set(m, limits[i], &together, 0, JOBS, &e);
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
            for (int j = 0; j < JOBS; j++)
                mixed[j] = together.jobs[j * 7 % JOBS];
            memcpy(together.jobs, mixed, sizeof mixed);
            steer_status s =
                run_job_set(m, (steer_limits)LIMITS(streams, 32, 32), &together, 0, JOBS, &e);
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
            steer_status s = run_job_set(m, tight[i], &together, 0, 6, &e);
            CHECK_THAT(!s, "%d streams, %d rows: %s", tight[i].streams, tight[i].rows, e.text);
            for (int j = 0; j < 6 && !s; j++)
                CHECK_THAT(together.sums[j] == alone.sums[j], "job %d", j);
        }
        free((void *)v);
    }
}

/* Jobs whose plans act in the prompt or in the answer, with room to share beginnings and without:
 * the bits of each alone under a plan that names the same positions. */
static void test_parts(void) {
    static const steer_limits limits[] = {LIMITS(64, 32, 512), LIMITS(8, 32, 16), LIMITS(2, 32, 5)};
    static job_set set;
    for (int k = 0; k < TEST_MODELS; k++) {
        steer_model *m = test_model(k);
        const float *v = random_vector(81, 1, k, m->config.d, 0, 1);
        const steer_edit add = {STEER_ADD, .layer = 1, .coeff = 1.5f, .v = v};
        const steer_edit tried[][2] = {
            {{STEER_ADD, .layer = 1, .coeff = 1.5f, .v = v, .part = STEER_IN_PROMPT}},
            {{STEER_ADD, .layer = 1, .coeff = 1.5f, .v = v, .part = STEER_IN_ANSWER, .to = 2}},
            {add, {STEER_FREEZE, .what = STEER_QK | STEER_V, .part = STEER_IN_PROMPT}},
            {add, {STEER_FREEZE, .what = STEER_V, .part = STEER_IN_ANSWER, .from = 1}},
            {add, {STEER_REMOVE, .what = STEER_SVV, .part = STEER_IN_ANSWER}},
            {{STEER_ABLATE, .v = v, .part = STEER_IN_PROMPT}}};
        steer_error e = {0};
        for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
            uint32_t alone[JOBS], everywhere = 0;
            int n = tried[i][1].kind ? 2 : 1;
            make_jobs(&set, m, v);
            for (int j = 0; j < JOBS; j++) {
                steer_edit edits[2] = {tried[i][0], tried[i][1]};
                steer_plan own = {edits, n};
                int answer = set.jobs[j].n_prompt;
                for (steer_edit *x = edits; x < edits + n; x++) {
                    int in_answer = x->part == STEER_IN_ANSWER;
                    if (x->part && (x->to || !in_answer))
                        x->to = answer + in_answer * x->to;
                    x->from += in_answer ? answer : 0;
                    x->part = 0;
                }
                set.jobs[j].plan = &own;
                set.jobs[j].max_new = NEW;
                steer_status s = run_job_set(m, limits[1], &set, j, 1, &e);
                CHECK_THAT(!s || (s == STEER_ENOHIT && set.jobs[j].n_out < 3), "%s", e.text);
                alone[j] = set.sums[j];
                edits[n - 1].from = edits[n - 1].to = 0; /* what the position decides */
                set.sums[j] = 0;
                CHECK_THAT(!run_job_set(m, limits[1], &set, j, 1, &e), "%s", e.text);
                everywhere += set.sums[j] != alone[j];
            }
            CHECK_THAT(everywhere >= JOBS - 4, "plan %zu: for %u of %d jobs positions matter", i,
                       everywhere, JOBS);
            for (size_t l = 0; l < sizeof limits / sizeof *limits; l++) {
                steer_plan shared = {tried[i], n};
                make_jobs(&set, m, v);
                for (int j = 0; j < JOBS; j++) {
                    set.jobs[j].plan = &shared;
                    set.jobs[j].max_new = NEW;
                }
                CHECK_THAT(!run_job_set(m, limits[l], &set, 0, JOBS, &e), "%s", e.text);
                for (int j = 0; j < JOBS; j++)
                    CHECK_THAT(set.sums[j] == alone[j], "%s, plan %zu, %d streams: job %d",
                               model_names[k], i, limits[l].streams, j);
            }
        }
        free((void *)v);
    }
}

/* ---------------------------------------------------------------- plans that are equal */

/* Logits of every token of one stream under any plan, beside a twin under another; tape if
 * given. */
static steer_status run_plan(const steer_model *m, const steer_plan *plan, int64_t *hits,
                             const steer_plan *twin_plan, int64_t *twin_hits, int twin,
                             const int *tokens, int n, float *logits, steer_tape *tape,
                             steer_error *e) {
    steer_limits l = {.streams = 2, .positions = n, .rows = 2 * n};
    steer_context *c = steer_context_new(m, &l, e);
    if (!c)
        return e->code;
    steer_job job = {.prompt = tokens, .n_prompt = n};
    steer_row rows[128];
    steer_status s = STEER_OK;
    if (twin)
        s = steer_begin(c, 1, twin_plan, -1, twin_hits, e);
    if (!s)
        s = steer_begin(c, 0, plan, twin ? 1 : -1, hits, e);
    int count = put_rows(rows, &job, 0, twin ? 1 : -1, 0, n);
    for (int i = 0; i < count; i++) {
        rows[i].logits = rows[i].stream == 0;
        if (tape)
            rows[i].tape = 1 + rows[i].pos + (rows[i].stream ? n : 0);
    }
    if (!s)
        s = steer_run(c, rows, count, tape, e);
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
    return run_plan(m, list, plan ? plan->hits : NULL, twin_list,
                    twin_plan ? twin_plan->hits : NULL, twin, tokens, n, logits, tape, e);
}

/* What runs under two plans are compared on: a model, a vector [d], PLAN_TOKENS tokens, room for
 * the logits [PLAN_TOKENS][vocab] of three runs. */
enum { PLAN_TOKENS = 18 };

typedef struct {
    steer_model *m;
    int tokens[PLAN_TOKENS];
    size_t row, size; /* bytes, of one token's logits and of all */
    float *logits[3];
    const float *v;
} comparison;

static comparison comparison_of(int k, int seed) {
    comparison x = {.m = test_model(k)};
    x.row = sizeof(float) * (size_t)x.m->config.vocab;
    x.size = x.row * PLAN_TOKENS;
    for (int i = 0; i < 3; i++)
        x.logits[i] = malloc(x.size);
    x.v = random_vector(seed, 1, k, x.m->config.d, 0, 1);
    dice = (uint64_t)seed;
    random_tokens(x.tokens, PLAN_TOKENS, x.m->config.vocab);
    return x;
}

static void free_comparison(comparison *x) {
    for (int i = 0; i < 3; i++)
        free(x->logits[i]);
    free((void *)(uintptr_t)x->v);
}

static void test_equal_plans(void) {
    enum { N = PLAN_TOKENS };

    steer_error e = {0};
    for (int k = 0; k < TEST_MODELS; k++) {
        comparison on = comparison_of(k, 82);
        steer_model *m = on.m;
        int vocab = m->config.vocab, *tokens = on.tokens;
        size_t row = on.row, size = on.size;
        float *plain = on.logits[0], *steered = on.logits[1], *got = on.logits[2];
        const float *v = on.v;
        changes add = test_plan(ADD, v, NULL);
        CHECK_THAT(!run_pair(m, NULL, NULL, 0, tokens, N, plain, NULL, &e), "%s", e.text);
        CHECK_THAT(!run_pair(m, &add, NULL, 0, tokens, N, steered, NULL, &e), "%s", e.text);
        CHECK_THAT(hits_of(&add, STEER_ADD) == N && add.plan.n == 1, "%lld rows steered",
                   hits_of(&add, STEER_ADD));
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
            CHECK_THAT(hits_of(&frozen, STEER_FREEZE) == N * (m->config.layers - 1),
                       "%lld rows frozen", hits_of(&frozen, STEER_FREEZE));
        }
        /* A span that covers all, one that covers none of the first positions, and one of the
         * first only. */
        p = test_plan(ADD, v, NULL);
        p.from = -5;
        p.to = 1000;
        CHECK_THAT(!run_pair(m, &p, NULL, 0, tokens, N, got, NULL, &e) &&
                       !memcmp(got, steered, size),
                   "%s: the whole span", model_names[k]);
        p = test_plan(ADD, v, NULL);
        p.from = 7;
        CHECK_THAT(
            !run_pair(m, &p, NULL, 0, tokens, N, got, NULL, &e) && !memcmp(got, plain, 7 * row) &&
                memcmp(got + 7 * vocab, plain + 7 * vocab, row) && hits_of(&p, STEER_ADD) == N - 7,
            "%s: a span from 7 on", model_names[k]);
        p = test_plan(ADD, v, NULL);
        p.to = 7;
        CHECK_THAT(
            !run_pair(m, &p, NULL, 0, tokens, N, got, NULL, &e) && !memcmp(got, steered, 7 * row) &&
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
            for (int t = 0; t < N; t++)
                rows[t] = (steer_row){0, t, tokens[t], 0, 0};
            CHECK_THAT(!steer_run(c, rows, N, NULL, &e) && !steer_fork(c, 0, 1, n, &e),
                       "fork after %d: %s", n, e.text);
            for (int t = n; t < N; t++)
                rows[t - n] = (steer_row){1, t, tokens[t], 1, 0};
            if (n < N) {
                CHECK_THAT(!steer_run(c, rows, N - n, NULL, &e), "%s", e.text);
                CHECK_THAT(!memcmp(steer_logits(c, 0), steered + n * vocab, (size_t)(N - n) * row),
                           "%s: fork after %d", model_names[k], n);
            }
            CHECK_THAT(steer_fork(c, 0, 1, 1, &e) == STEER_EARG || n == 0,
                       "a fork into a stream that holds %d positions", n);
            steer_context_free(c);
        }
        free_comparison(&on);
    }
}

/* Plans that are said in two ways, edit by edit; and edits at some positions only. */
static void test_edit_lists(void) {
    enum { N = PLAN_TOKENS, AT = 7 };

    steer_error e = {0};
    for (int k = 0; k < TEST_MODELS; k++) {
        comparison on = comparison_of(k, 83);
        steer_model *m = on.m;
        int vocab = m->config.vocab, *tokens = on.tokens;
        size_t row = on.row;
        float *one = on.logits[0], *two = on.logits[1], *plain = on.logits[2];
        const float *v = on.v;
        const steer_edit add = {STEER_ADD, .layer = 1, .coeff = 1.5f, .v = v};
        const steer_edit low = {STEER_ADD, .layer = 1, .to = AT, .coeff = 1.5f, .v = v};
        const steer_edit high = {STEER_ADD, .layer = 1, .from = AT, .coeff = 1.5f, .v = v};
        const steer_edit later = {STEER_ADD, .layer = 2, .coeff = -1, .v = v};
        const steer_edit qk = {STEER_FREEZE, .what = STEER_QK},
                         values = {STEER_FREEZE, .what = STEER_V};
        const steer_edit both = {STEER_FREEZE, .layer = 1, .what = STEER_QK | STEER_V};
        const steer_edit early = {STEER_FREEZE, .to = AT, .what = STEER_QK | STEER_V};
        const steer_edit images = {STEER_REMOVE, .what = STEER_SVV | STEER_MLP_DIRECT};
        const steer_edit svv = {STEER_REMOVE, .layer = 1, .what = STEER_SVV};
        const steer_edit direct = {STEER_REMOVE, .to = N, .what = STEER_MLP_DIRECT};
        const steer_edit early_image = {STEER_REMOVE, .to = AT, .what = STEER_SVV};
        const steer_edit zero = {STEER_ABLATE, .v = v},
                         early_zero = {STEER_ABLATE, .to = AT, .v = v};

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
                CHECK_THAT(!run_plan(m, &p, hits, NULL, NULL, !plan_has(&p, STEER_ABLATE), tokens,
                                     N, logits[j], NULL, &e),
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
            CHECK_THAT(!ablated_again || far < 1e-3, "%s: ablated again, off by %g", model_names[k],
                       far);
        }
        /* A vector in each of two blocks: block 2's residual gets its own on top. */
        steer_plan lists[2] = {{&add, 1}, {(const steer_edit[]){later, add}, 2}};
        steer_tape tape[2];
        size_t d = (size_t)m->config.d, plane = 2 * N * d;
        for (int j = 0; j < 2; j++) {
            tape[j] =
                (steer_tape){.resid = zeros(plane * (size_t)(m->config.layers + 1), sizeof(float)),
                             .rows = 2 * N};
            CHECK_THAT(!run_plan(m, &lists[j], NULL, NULL, NULL, 0, tokens, N, plain, &tape[j], &e),
                       "%s", e.text);
        }
        for (size_t t = 0; t < N; t++)
            for (size_t i = 0; i < d; i++) {
                float x = tape[0].resid[2 * plane + t * d + i],
                      y = tape[1].resid[2 * plane + t * d + i];
                CHECK_THAT(y == x - v[i], "%s: position %zu: %.9g, not %.9g - v", model_names[k], t,
                           (double)y, (double)x);
            }
        free(tape[0].resid);
        free(tape[1].resid);
        free_comparison(&on);
    }
}

/* ---------------------------------------------------------------- whatever the weights */

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
    for (size_t i = 0; i < d; i++)
        v[i] = (float)(scale * random_value(9, 1, 0, i));
    for (size_t i = 0; i < 3 * L; i++)
        keep[i] = (float)(scale * 3 * random_value(9, 2, 0, i));
#define X(tape, t, b, i) tape.resid[((size_t)(b) * 2 * N + (size_t)(t)) * d + (i)]
    /* After an ablation each block's input has the component that was to be kept. */
    for (int kept = 0; kept < 2; kept++) {
        changes p = {.ablate = v, .keep = kept ? keep : NULL};
        CHECK_THAT(!run_pair(m, &p, NULL, 0, tokens, N, NULL, &other, &e), "%s", e.text);
        CHECK_THAT(hits_of(&p, STEER_ABLATE) == 3 * N * (int64_t)L, "%lld rows ablated",
                   hits_of(&p, STEER_ABLATE));
        double norm = 0, off = 0;
        for (size_t i = 0; i < d; i++)
            norm += (double)v[i] * (double)v[i];
        norm = sqrt(norm);
        for (size_t t = 0; t < N; t++)
            for (size_t b = 0; b < L; b++) {
                double along = 0, length = 0;
                for (size_t i = 0; i < d; i++) {
                    along += (double)X(other, t, b, i) * (double)v[i] / norm;
                    length += pow((double)X(other, t, b, i), 2);
                }
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
    free(plain.resid);
    free(other.resid);
    free(v);
    free(keep);
}

static void test_identities(void) {
    for (int k = 0; k < TEST_MODELS; k++)
        check_identities(test_model(k), model_names[k]);
    static const char *const files[] = {"weights/tiny-llama.bin", "weights/tiny-gemma.bin"};
    for (int k = 0; k < 2; k++) {
        steer_model *m = open_or_fail(files[k]);
        if (m)
            check_identities(m, files[k]);
        steer_close(m);
    }
}

/* ---------------------------------------------------------------- what is refused */

/* What the tables of refusals are about: a context of three streams, vectors good and bad. */
typedef struct {
    steer_model *m;
    steer_context *c;
    float v[64], zero[64], broken[64], keep[12], broken_keep[12];
} refuser;

static void check_refused_plans(const refuser *r) {
    const float *v = r->v;
    const steer_edit add = {STEER_ADD, .coeff = 1, .v = v}, ablate = {STEER_ABLATE, .v = v};
    const steer_edit later = {STEER_ADD, .layer = 1, .coeff = 1, .v = v};
    const steer_edit start = {STEER_START, .layer = 2, .v = v};
    const steer_edit some = {STEER_START, .v = v, .to = 2};
    const steer_edit no_start = {.kind = STEER_START}, no_cut = {.kind = STEER_CUT};
    const steer_edit values = {STEER_FREEZE, .what = STEER_V};
    const steer_edit behind = {.kind = STEER_START + 1};

    const struct {
        const char *what, *word;
        steer_plan plan;
        int stream, twin;
        steer_status code;
    } wrong[] = {
        {"a zero vector", "zero", PLAN({STEER_ADD, .coeff = 1, .v = r->zero}), 0, -1, STEER_EARG},
        {"a zero direction", "zero", PLAN({STEER_ABLATE, .v = r->zero}), 0, -1, STEER_EARG},
        {"coefficient 0", "coefficient", PLAN({STEER_ADD, .v = v}), 0, -1, STEER_EARG},
        {"NaN", "coefficient", PLAN({STEER_ADD, .coeff = NAN, .v = v}), 0, -1, STEER_EARG},
        {"infinite", "coefficient", PLAN({STEER_ADD, .coeff = INFINITY, .v = v}), 0, -1,
         STEER_EARG},
        {"a NaN in the vector", "finite", PLAN({STEER_ADD, .coeff = 1, .v = r->broken}), 0, -1,
         STEER_ENONFINITE},
        {"a NaN in the direction", "finite", PLAN({STEER_ABLATE, .v = r->broken}), 0, -1,
         STEER_ENONFINITE},
        {"block 5 of 4", "block", PLAN({STEER_ADD, .layer = 5, .coeff = 1, .v = v}), 0, -1,
         STEER_EARG},
        {"ablates behind the last block", "block", PLAN({STEER_ABLATE, .layer = 4, .v = v}), 0, -1,
         STEER_EARG},
        {"block -1", "block", PLAN({STEER_ADD, .layer = -1, .coeff = 1, .v = v}), 0, -1,
         STEER_EARG},
        {"part 3 of a text", "part", PLAN({STEER_ADD, .coeff = 1, .v = v, .part = 3}), 0, -1,
         STEER_EARG},
        {"before the answer", "part",
         PLAN({STEER_ADD, .coeff = 1, .v = v, .part = STEER_IN_ANSWER, .from = -1}), 0, -1,
         STEER_EARG},
        {"nothing at all", "nothing", {&add, 0}, 0, -1, STEER_EARG},
        {"less than no edits", "nothing", {&add, -1}, 0, 1, STEER_EARG},
        {"edits that are not there", "nothing", {NULL, 3}, 0, -1, STEER_EARG},
        {"freeze without a vector", "no vector", PLAN(values), 0, 1, STEER_EARG},
        {"freeze without a twin", "twin", PLAN(add, values), 0, -1, STEER_EARG},
        {"a twin's values in no block", "block", PLAN({STEER_FREEZE, .layer = 9, .what = STEER_V}),
         0, 1, STEER_EARG},
        {"adding and ablating", "take one", PLAN(add, ablate), 0, -1, STEER_EARG},
        {"an unknown freeze", "unknown", PLAN(add, {STEER_FREEZE, .what = 8}), 0, 1, STEER_EARG},
        {"an unknown removal", "unknown", PLAN(add, {STEER_REMOVE, .what = 4}), 0, -1, STEER_EARG},
        {"removal without a vector", "vector", PLAN(ablate, {STEER_REMOVE, .what = STEER_SVV}), 0,
         -1, STEER_EARG},
        {"ablation with a twin", "twin", PLAN(ablate), 0, 1, STEER_EARG},
        {"its own twin", "twin", PLAN(add, values), 0, 0, STEER_EARG},
        {"a twin that does not exist", "twin", PLAN(add, values), 0, 3, STEER_EARG},
        /* Lists that no option says: of no kind, twice what can be only once, in no order. */
        {"no kind", "unknown kind", PLAN({0}), 0, 1, STEER_EARG},
        {"a kind behind the last", "unknown kind", PLAN(behind), 0, 1, STEER_EARG},
        {"an addition of nothing", "no vector", PLAN({STEER_ADD, .coeff = 1}), 0, 1, STEER_EARG},
        {"a cut of nothing", "which", PLAN(no_cut), 0, 1, STEER_EARG},
        {"a start from nothing", "nothing", PLAN(no_start), 0, 1, STEER_EARG},
        {"a start at some positions", "nothing", PLAN(some), 0, 1, STEER_EARG},
        {"two starts", "twice", PLAN(start, start), 0, 1, STEER_EARG},
        {"a start above the vector", "above", PLAN(later, start), 0, 1, STEER_EARG},
        {"no freezing", "nothing", PLAN(later, {.kind = STEER_FREEZE}), 0, 1, STEER_EARG},
        {"stream -1", "stream", PLAN(add), -1, -1, STEER_EARG},
        {"stream 3 of 3", "stream", PLAN(add), 3, -1, STEER_EARG}};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int64_t hits[2];
        steer_error e = {0};
        steer_status s =
            steer_begin(r->c, wrong[i].stream, &wrong[i].plan, wrong[i].twin, hits, &e);
        check_refusal(wrong[i].what, s, wrong[i].code, &e, wrong[i].word);
        s = steer_begin(r->c, wrong[i].stream, &wrong[i].plan, wrong[i].twin, hits, NULL);
        CHECK_THAT(s == wrong[i].code, "%s: without an error to fill in", wrong[i].what);
    }
}

/* Rows with cut edges enter at one block, since they stand side by side in a batch. */
static void check_start_of_cuts(const refuser *r) {
    const steer_limits l = {.streams = 4, .positions = 8, .rows = 4, .cut_rows = 2, .cut_layer = 2};
    steer_error e = {0};
    steer_context *c = steer_context_new(r->m, &l, &e);
    unsigned char *cut = zeros(1 << 16, 1);
    const steer_edit cuts = {STEER_CUT, .layer = 2, .cut = cut};
    const steer_plan below = PLAN({STEER_START, .layer = 1, .v = r->v}, cuts);
    const steer_plan there = PLAN({STEER_START, .layer = 2, .v = r->v}, cuts);
    CHECK_THAT(c, "%s", e.text);
    steer_status s = steer_begin(c, 1, &below, 0, NULL, &e);
    check_refusal("cut edges above the start", s, STEER_EARG, &e, "starts at another block");
    CHECK_THAT(!steer_begin(c, 1, &there, 0, NULL, &e), "cut edges from the start on: %s", e.text);
    free(cut);
    steer_context_free(c);
}

/* An edit that never fires: a span beyond the text, or a plan used again whose hits are old. */
static void check_edits_that_fire(const refuser *r) {
    const float *v = r->v;
    const steer_edit add = {STEER_ADD, .coeff = 1, .v = v};
    const steer_edit qk = {STEER_FREEZE, .what = STEER_QK};
    const steer_edit direct = {STEER_REMOVE, .what = STEER_MLP_DIRECT};
    static const int prompt[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    steer_error e = {0};
    int out[8];

    const struct {
        const char *what, *word;
        steer_plan plan;
        int n_prompt, max_new;
        steer_status code;
    } tried[] = {
        {"a span beyond the text", "", PLAN({STEER_ADD, .coeff = 1, .v = v, .from = 20}), 5, 3,
         STEER_ENOHIT},
        {"an empty span", "", PLAN({STEER_ADD, .coeff = 1, .v = v, .from = 4, .to = 3}), 5, 3,
         STEER_ENOHIT},
        {"removal beyond the text", "",
         PLAN({STEER_ADD, .coeff = 1, .v = v, .from = 20},
              {STEER_REMOVE, .what = STEER_SVV, .from = 20}),
         5, 3, STEER_ENOHIT},
        {"the last token of the prompt", "",
         PLAN({STEER_ADD, .coeff = 1, .v = v, .from = 4, .to = 5}), 5, 3, STEER_OK},
        {"a generated token", "", PLAN({STEER_ADD, .coeff = 1, .v = v, .from = 5}), 5, 3, STEER_OK},
        {"ablation", "", PLAN({STEER_ABLATE, .v = v, .keep = r->keep}), 5, 3, STEER_OK},
        {"frozen and removed", "", PLAN(add, qk, direct), 5, 3, STEER_OK},
        {"a NaN to keep", "", PLAN({STEER_ABLATE, .v = v, .keep = r->broken_keep}), 5, 3,
         STEER_ENONFINITE},
        {"edits that are not there", "nothing", {NULL, 3}, 5, 1, STEER_EARG},
        /* of these two the second finds the hits of the first */
        {"three rows of nine", "", PLAN({STEER_ADD, .coeff = 1, .v = v, .from = 6}), 9, 1,
         STEER_OK},
        {"none of five", "", PLAN({STEER_ADD, .coeff = 1, .v = v, .from = 6}), 5, 1, STEER_ENOHIT},
        {"a plan that passes", "", PLAN(add), 5, 1, STEER_OK}};

    int64_t hits[3] = {0};
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        steer_job job = {.prompt = prompt,
                         .n_prompt = tried[i].n_prompt,
                         .max_new = tried[i].max_new,
                         .out = out,
                         .plan = &tried[i].plan,
                         .hits = hits};
        steer_status s = steer_generate(r->c, &job, 1, NULL, NULL, &e);
        check_refusal(tried[i].what, s, tried[i].code, &e, tried[i].word);
        CHECK_THAT(!s || *e.text, "%s: nothing is said", tried[i].what);
        CHECK_THAT(tried[i].n_prompt < 9 || hits[0] == 3, "%lld rows steered", (long long)hits[0]);
    }
    /* What generates leaves no stream under its plans, whose memory is the caller's again. */
    steer_row begun = {0, 0, 1, 0, 0};
    CHECK_THAT(!r->c->streams[0].plan.n && !steer_run(r->c, &begun, 1, NULL, &e),
               "after generation: %s", e.text);
}

/* The twin must be fed the same token in the same run, positions must go on, all must exist. */
static void check_refused_rows(const refuser *r) {
    const steer_edit edits[] = {{STEER_ADD, .layer = 1, .coeff = 1, .v = r->v},
                                {STEER_FREEZE, .layer = 1, .what = STEER_V}};
    const steer_plan frozen = {edits, 2};
    float resid[5 * 64];
    const steer_tape tape = {.resid = resid, .rows = 1};
    steer_error e = {0};

    static const struct {
        const char *what, *word;
        steer_row rows[3];
        int n, taped;
    } wrong[] = {{"a twin fed another token", "twin", {{1, 0, 2, 0, 0}, {0, 0, 3, 0, 0}}, 2, 0},
                 {"a twin not fed", "twin", {{0, 0, 3, 0, 0}}, 1, 0},
                 {"a twin at another position",
                  "twin",
                  {{1, 0, 3, 0, 0}, {1, 1, 3, 0, 0}, {0, 0, 4, 0, 0}},
                  3,
                  0},
                 {"a gap", "position 0, not 1", {{2, 1, 3, 0, 0}}, 1, 0},
                 {"a position twice", "position", {{2, 0, 3, 0, 0}, {2, 0, 3, 0, 0}}, 2, 0},
                 {"a negative position", "position", {{2, -1, 3, 0, 0}}, 1, 0},
                 {"a position beyond the context", "position 32", {{2, 32, 3, 0, 0}}, 1, 0},
                 {"token 96 of 96", "token 96", {{2, 0, 96, 0, 0}}, 1, 0},
                 {"token -1", "token -1", {{2, 0, -1, 0, 0}}, 1, 0},
                 {"stream 3 of 3", "stream 3", {{3, 0, 1, 0, 0}}, 1, 0},
                 {"stream -1", "stream -1", {{-1, 0, 1, 0, 0}}, 1, 0},
                 {"a tape that is not there", "tape", {{2, 0, 1, 0, 1}}, 1, 0},
                 {"tape row -1", "tape", {{2, 0, 1, 0, -1}}, 1, 0},
                 {"row 2 of a tape of 1", "tape", {{2, 0, 1, 0, 2}}, 1, 1},
                 {"no rows", "0 rows", {{0, 0, 0, 0, 0}}, 0, 0},
                 {"too many rows", "65 rows", {{0, 0, 0, 0, 0}}, 65, 0}};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        steer_row rows[65] = {{0}};
        const steer_tape *to = wrong[i].taped ? &tape : NULL;
        memcpy(rows, wrong[i].rows, sizeof wrong[i].rows);
        steer_begin(r->c, 1, NULL, -1, NULL, NULL);
        steer_begin(r->c, 2, NULL, -1, NULL, NULL);
        CHECK_THAT(!steer_begin(r->c, 0, &frozen, 1, NULL, &e), "%s", e.text);
        steer_status s = steer_run(r->c, rows, wrong[i].n, to, &e);
        check_refusal(wrong[i].what, s, STEER_EARG, &e, wrong[i].word);
        CHECK_THAT(steer_run(r->c, rows, wrong[i].n, to, NULL) == s,
                   "%s: without an error to fill in", wrong[i].what);
    }
    steer_row row = {2, 0, 1, 0, 1};
    CHECK_THAT(!steer_run(r->c, &row, 1, &tape, &e), "after errors the stream goes on: %s", e.text);
    CHECK_THAT(!steer_logits(r->c, 0), "logits that were not asked for");
}

/* Stream 2 holds one position. */
static void check_refused_forks(const refuser *r) {
    static const struct {
        const char *what;
        int from, to, n;
    } wrong[] = {{"into itself", 2, 2, 1},        {"into stream 3 of 3", 2, 3, 1},
                 {"of stream -1", -1, 2, 0},      {"of two positions", 2, 1, 2},
                 {"of less than none", 2, 1, -1}, {"of stream 3", 3, 1, 0}};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        steer_error e = {0};
        steer_status s = steer_fork(r->c, wrong[i].from, wrong[i].to, wrong[i].n, &e);
        check_refusal(wrong[i].what, s, STEER_EARG, &e, "");
        CHECK_THAT(*e.text, "a fork %s: nothing is said", wrong[i].what);
    }
}

static void check_refused_contexts(const refuser *r) {
    static const struct {
        const char *what;
        steer_limits limits;
    } wrong[] = {{"more positions than the model", LIMITS(1, 513, 4)},
                 {"streams below none", LIMITS(-1, 8, 4)},
                 {"positions below none", LIMITS(1, -8, 4)},
                 {"rows below none", LIMITS(1, 8, -4)},
                 {"two million streams", LIMITS(1 << 21, 8, 4)},
                 {"33 million positions", LIMITS(1, 1 << 25, 4)}};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        steer_error e = {0};
        CHECK_THAT(!steer_context_new(r->m, &wrong[i].limits, &e), "%s", wrong[i].what);
        check_refusal(wrong[i].what, e.code, STEER_EARG, &e, "");
        CHECK_THAT(*e.text, "%s: nothing is said", wrong[i].what);
        CHECK_THAT(!steer_context_new(r->m, &wrong[i].limits, NULL),
                   "%s: without an error to fill in", wrong[i].what);
    }
}

static void test_plan_errors(void) {
    steer_limits l = {.streams = 3, .positions = 32, .rows = 64};
    steer_error e = {0};
    refuser r = {.m = test_model(0), .broken = {[63] = NAN}, .broken_keep = {NAN}};
    r.c = steer_context_new(r.m, &l, &e);
    for (int i = 0; i < 64; i++)
        r.v[i] = (float)random_value(9, 9, 9, (uint64_t)i);
    r.v[0] = 1;
    check_refused_plans(&r);
    check_start_of_cuts(&r);
    check_edits_that_fire(&r);
    check_refused_rows(&r);
    check_refused_forks(&r);
    check_refused_contexts(&r);
    steer_context_free(r.c);
}

/* Arguments that a caller of the library can give by mistake. tests/fuzz.c
 * tries many more; these are the ones that once went wrong. */
static void test_odd_arguments(void) {
    image f = small_image(F32, 0);
    steer_model *m = open_image(&f);
    steer_error e = {0};
    int vocab = m->config.vocab, ids[] = {-1, 't', vocab, INT_MAX, 'h', INT_MIN, 'e'}, tokens[64];
    char text[16];
    size_t n = steer_decode(m, ids, 7, text, sizeof text);
    CHECK_THAT(n == 3 && !strcmp(text, "the"), "ids outside the vocabulary: %zu bytes, %s", n,
               text);
    static const int turns[] = {-1, -2, INT_MIN};
    for (int i = 0; i < 3; i++) {
        memset(&e, 0, sizeof e);
        long count = steer_chat(m, NULL, NULL, turns[i], tokens, 64, &e);
        CHECK_THAT(count == -1 && e.code == STEER_EARG && strstr(e.text, "turns"), "%d turns: %ld",
                   turns[i], count);
    }
    static const int layers[] = {-1, 2, INT_MAX, INT_MIN};
    for (int i = 0; i < 4; i++) {
        steer_graph g = steer_graph_of(m, layers[i]);
        CHECK_THAT(!g.nodes && !g.slots && !g.edges, "a graph from block %d", layers[i]);
    }

    /* Logits are those of the last run's rows that wanted them, and of no other. */
    steer_limits l = {.positions = 8, .rows = 4};
    steer_context *c = steer_context_new(m, &l, &e);
    steer_row rows[2] = {{.token = 't', .logits = 1}, {.token = 'h', .pos = 1}};
    CHECK_THAT(!steer_logits(c, 0), "logits before any run");
    CHECK_THAT(!steer_run(c, rows, 2, NULL, &e), "%s", e.text);
    static const int none[] = {1, 2, 3, 4, -1, INT_MAX, INT_MIN};
    CHECK_THAT(steer_logits(c, 0) != NULL, "no logits of row 0");
    for (int i = 0; i < 7; i++)
        CHECK_THAT(!steer_logits(c, none[i]), "logits of row %d", none[i]);
    CHECK_THAT(steer_run(c, rows, 2, NULL, &e) == STEER_EARG && !steer_logits(c, 0),
               "logits of a run that was refused");
    steer_context_free(c);

    /* Examples whose sizes overflow. */
    steer_tracer *t = steer_tracer_new(m, 1, 8, 4, 1, &e);
    double *scores = zeros(scores_width(t), sizeof *scores), F;
    static const int sizes[][2] = {
        {INT_MAX, 1},       {INT_MIN, 1},       {8, INT_MIN}, {8, INT_MAX},
        {INT_MIN, INT_MIN}, {INT_MIN, INT_MAX}, {0, 0},       {-1, -1}};
    float *v = zeros((size_t)m->config.d, sizeof *v);
    v[0] = 1;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        steer_example x = {tokens, sizes[i][0], sizes[i][1], 1, 1};
        steer_plan plan = {0};
        CHECK_THAT(attribute(t, &x, v, STEER_LOGIT, 1, scores, &e) == STEER_EARG,
                   "%d tokens, %d of prompt are attributed", x.n, x.n_prompt);
        steer_scores gradient = {.gradient =
                                     v}; /* too small: nothing is written before it is known */
        CHECK_THAT(steer_attribute(t, &x, v, STEER_LOGIT, 1, &gradient, &e) == STEER_EARG,
                   "%d tokens, %d of prompt have a gradient", x.n, x.n_prompt);
        CHECK_THAT(steer_faithfulness(t, &x, v, &plan, 1, &F, NULL, &e) == STEER_EARG,
                   "%d tokens, %d of prompt are judged", x.n, x.n_prompt);
    }
    CHECK_THAT(steer_faithfulness(t, &(steer_example){tokens, 3, 1, 1, 1}, v, NULL, -5, &F, scores,
                                  &e) == STEER_EARG,
               "-5 plans are judged");
    free(scores);
    free(v);
    steer_tracer_free(t);
    steer_close(m);
    free(f.bytes);
}

/* ---------------------------------------------------------------- generation and means */

static struct {
    int count, last_job, stop_after;
} ticks;

static int count_tick(void *user, int job, int token) {
    (void)user;
    (void)token;
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
        while (out[first] != out[k])
            first++;
        config->eot[0] = out[k];
        job.out = again;
        CHECK_THAT(!steer_generate(c, &job, 1, NULL, NULL, &e) && job.n_out == first + 1 &&
                       !memcmp(again, out, sizeof *out * (size_t)job.n_out),
                   "%d tokens to token %d", job.n_out, out[k]);
    }
    config->eot[0] = config->vocab;
    for (int n = 0; n < 5; n++) {
        job.max_new = n;
        job.n_out = 7;
        CHECK_THAT(!steer_generate(c, &job, 1, NULL, NULL, &e) && job.n_out == n, "%d tokens of %d",
                   job.n_out, n);
    }
    /* Sampling: the same seed gives the same text, another one another; a tiny top_p is greedy. */
    int texts[8][40], differ = 0;
    for (int seed = 0; seed < 4; seed++) {
        int (*text)[40] = &texts[2 * seed];
        for (int i = 0; i < 2; i++) {
            job = (steer_job){.prompt = prompt,
                              .n_prompt = 6,
                              .max_new = 40,
                              .out = text[i],
                              .temperature = 3,
                              .seed = (uint64_t)seed};
            CHECK_THAT(!steer_generate(c, &job, 1, NULL, NULL, &e), "%s", e.text);
        }
        CHECK_THAT(!memcmp(text[0], text[1], sizeof *text), "seed %d gives two texts", seed);
        differ += seed && memcmp(text[0], text[-1], sizeof *text);
    }
    CHECK_THAT(differ == 3, "four seeds: %d differ from the one before", differ);
    job.top_p = 1e-6f;
    job.out = again;
    CHECK_THAT(!steer_generate(c, &job, 1, NULL, NULL, &e) && !memcmp(again, out, sizeof out),
               "a tiny top_p is greedy");
    job.top_p = 0;
    job.temperature = 1e-5f;
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
    for (int i = 0; i < 4; i++)
        logits[i] = (float)(2 * log(p[i])); /* at temperature 2 */
    for (int cut = 0; cut < 2; cut++) {
        int counts[4] = {0}, draws = 20000;
        for (int i = 0; i < draws; i++) {
            steer_job j = {.temperature = 2, .top_p = cut ? 0.7f : 0, .seed = (uint64_t)i};
            counts[sample(&j, logits, 4, scratch)]++;
        }
        for (int i = 0; i < 4; i++) {
            double kept = i < 2 ? p[i] / 0.8 : 0, wanted = cut ? kept : p[i];
            CHECK_THAT(fabs((double)counts[i] / draws - wanted) < 0.015,
                       "top_p %s: token %d drawn %d times of %d", cut ? "0.7" : "1", i, counts[i],
                       draws);
        }
    }
    /* The visitor of tokens sees each, and can stop all. */
    for (int stop = 0; stop < 8; stop += 5) {
        for (int i = 0; i < 8; i++)
            many[i] = (steer_job){.prompt = prompt, .n_prompt = 6, .max_new = 5, .out = outs[i]};
        ticks.count = 0;
        ticks.stop_after = stop;
        CHECK_THAT(!steer_generate(c, many, 8, count_tick, NULL, &e), "%s", e.text);
        int total = 0;
        for (int i = 0; i < 8; i++)
            total += many[i].n_out;
        CHECK_THAT(ticks.count == total && (stop ? total == stop : total == 40),
                   "%d ticks, %d tokens", ticks.count, total);
    }
    /* Stopped, an edit that had no row yet is no error. */
    float *later = (float *)random_vector(84, 1, 0, config->d, 0, 1);
    const steer_plan in_answer = PLAN({STEER_ADD, .coeff = 1, .v = later, .part = STEER_IN_ANSWER});
    for (int i = 0; i < 8; i++)
        many[i] = (steer_job){
            .prompt = prompt, .n_prompt = 6, .max_new = 5, .out = outs[i], .plan = &in_answer};
    ticks.count = 0;
    ticks.stop_after = 1;
    CHECK_THAT(!steer_generate(c, many, 8, count_tick, NULL, &e) && ticks.count == 1, "%s", e.text);
    free(later);
    /* Too small, too long, wrong. */
    job = (steer_job){.prompt = prompt, .n_prompt = 6, .max_new = 59, .out = out};
    CHECK_THAT(steer_generate(c, &job, 1, NULL, NULL, &e) == STEER_EARG && strstr(e.text, "holds"),
               "%s", e.text);
    job.max_new = INT_MAX;
    CHECK_THAT(steer_generate(c, &job, 1, NULL, NULL, &e) == STEER_EARG, "INT_MAX new tokens");
    job.max_new = 4;
    job.n_prompt = 0;
    CHECK_THAT(steer_generate(c, &job, 1, NULL, NULL, &e) == STEER_EARG && strstr(e.text, "empty"),
               "%s", e.text);
    job.n_prompt = 6;
    prompt[2] = config->vocab;
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
        job = (steer_job){
            .prompt = prompt, .n_prompt = 6, .max_new = 4, .out = out, .plan = plan_of(&frozen)};
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
    if (!m)
        return;
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
        steer_sums sums = {.sum = mean[k]};
        for (int calls = 1; calls <= 2; calls++) /* sums of several calls add up */
            CHECK_THAT(!steer_means(c, &p, NULL, 0, &sums, &e) && sums.count == calls * p.n &&
                           sums.n == sums.count,
                       "%d prompts after %d calls: %s", sums.count, calls, e.text);
        for (size_t i = 0; i < n; i++)
            mean[k][i] /= sums.count;
        score[k] = sums.score / sums.n;
        if (k + 1 < TEXTS)
            steer_prompts_free(&p);
    }
    for (size_t i = 0; i < n; i++)
        off = fmax(off, fabs(mean[0][i] - mean[1][i]));
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
        steer_sums sums = {.sum = got};
        memset(expected, 0, n * sizeof *expected);
        for (int k = 2; k < 6; k++)
            if (sign * score[k] > 0) {
                wanted++;
                for (size_t i = 0; i < n; i++)
                    expected[i] += mean[k][i];
            }
        CHECK_THAT(!steer_means(c, &p, NULL, sign, &sums, &e) && sums.count == wanted,
                   "sign %d: %s", sign, e.text);
        total = sums.score / sums.n;
        for (size_t i = 0; i < n && wanted; i++)
            got[i] /= wanted;
        off = 0;
        for (size_t i = 0; i < n && wanted; i++)
            off = fmax(off, fabs(expected[i] / wanted - got[i]));
        CHECK_THAT(off < 1e-6 && fabs(total - score[6]) < 1e-9, "sign %d, %d prompts: off by %.3g",
                   sign, wanted, off);
        free(got);
    }
    for (int k = 0; k < TEXTS; k++)
        free(mean[k]);
    free(expected);
    steer_prompts_free(&p);
    steer_context_free(c);
    steer_close(m);
    free(f.bytes);
}

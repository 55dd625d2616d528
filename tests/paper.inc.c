/* Tests of the paper's second half: the backward pass, patching, circuits, value vectors, sparse
 * and trained vectors, the report. tests/test.c includes this file before its table. Formulas are
 * written out again here, in double and the plain way; a gradient is held against central
 * differences, a circuit against every path, a probability against every subset. */

/* ---------------------------------------------------------------- fixtures */

/* A number held against another; a NaN is infinitely wrong. */
static void hold(fit *f, double got, double expected) {
    double off = fabs(got - expected);
    f->largest = fmax(f->largest, fabs(expected));
    f->error = fmax(f->error, isnan(off) ? INFINITY : off);
}
/* The largest error, relative to the largest number. */
static double misfit(const fit *f) { return f->error / fmax(f->largest, 1e-12); }
static float *floats(int seed, int kind, size_t n, double scale) {
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(scale * random_value((uint64_t)seed, (uint64_t)kind, 7, i));
    return x;
}
static double *doubles(const float *from, size_t n) {
    double *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = from ? (double)from[i] : 0;
    return x;
}
/* Small models of the three families, made once. */
enum { FAMILIES = 3 };
static const char *const family_names[] = {"llama", "qwen2", "gemma"};
static steer_model *family(int kind) {
    static steer_model *made[FAMILIES];
    steer_config c = {.d = 16,
                      .layers = 4,
                      .heads = 4,
                      .kv_heads = 2,
                      .head_dim = 8,
                      .ff = 32,
                      .vocab = 48,
                      .tied = 1,
                      .norm_eps = 1e-5f,
                      .embed_scale = 1,
                      .query_scale = 0.353553391f};
    if (kind == 1)
        c.d = 20, c.layers = 3, c.kv_heads = 1, c.head_dim = 6, c.ff = 36, c.vocab = 61,
        c.qkv_bias = 1, c.tied = 0, c.norm_eps = 1e-6f;
    if (kind == 2)
        c.post_norms = c.gelu = 1, c.norm_offset = 1, c.attn_cap = 2, c.final_cap = 30,
        c.window = 4, c.window_every = 2, c.embed_scale = 4, c.query_scale = 0.7f;
    if (!made[kind]) made[kind] = random_model(90 + kind, 10000, c, F32);
    return made[kind];
}
/* A tracer with an example of random tokens on it. */
typedef struct {
    const steer_model *m;
    tracer t;
    example x;
    float *v;
} traced;
static void close_traced(traced *w) {
    free((void *)(uintptr_t)w->x.tokens), free(w->v);
    free_tracer(&w->t);
}
static int open_traced(traced *w, int kind, int n, int prompt, int streams, int steered_text) {
    steer_error e = {0};
    int *tokens = malloc(sizeof *tokens * (size_t)n);
    w->m = family(kind);
    dice = 17 + (uint64_t)kind;
    random_tokens(tokens, n, w->m->config.vocab);
    w->v = floats(95, kind, (size_t)w->m->config.d, kind == 2 ? 4 : 2);
    w->x = (example){tokens, n, prompt, -1.25f, steered_text};
    steer_status s = new_tracer(&w->t, w->m, 1, n + 3, n - prompt + 1, streams, &e);
    CHECK_THAT(!s, "%s", e.text);
    return !s;
}

/* ---------------------------------------------------------------- formulas in double */

static double weight_value(const weight *w, int j, int c) {
    size_t at = (size_t)j * (size_t)w->cols + (size_t)c;
    if (w->type == F32) return (double)((const float *)w->data)[at];
    if (w->type == Q8) return (double)((const int8_t *)w->data)[at] * (double)w->scale[at / 32];
    uint32_t bits = (uint32_t)((const uint16_t *)w->data)[at] << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}
/* y = (rows row .. row + rows - 1 of W) x + bias */
static void product64(double *y, const weight *w, int row, int rows, const double *x,
                      const float *bias) {
    for (int j = 0; j < rows; j++) {
        y[j] = bias ? (double)bias[row + j] : 0;
        for (int c = 0; c < w->cols; c++) y[j] += weight_value(w, row + j, c) * x[c];
    }
}
static double inverse_rms64(const double *x, double eps, int d) {
    double square = 0;
    for (int i = 0; i < d; i++) square += x[i] * x[i];
    return 1 / sqrt(square / d + eps);
}
static void norm64(double *y, const double *x, const float *w, const steer_config *c) {
    double r = inverse_rms64(x, (double)c->norm_eps, c->d);
    for (int i = 0; i < c->d; i++) y[i] = x[i] * r * ((double)c->norm_offset + (double)w[i]);
}
static double act64(double x, int gelu) {
    return gelu ? 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)))
                : x / (1 + exp(-x));
}
static double cap64(double x, double cap) { return cap > 0 ? cap * tanh(x / cap) : x; }
static void softmax64(double *p, int n) {
    double top = p[0], total = 0;
    for (int i = 0; i < n; i++) top = fmax(top, p[i]);
    for (int i = 0; i < n; i++) total += p[i] = exp(p[i] - top);
    for (int i = 0; i < n; i++) p[i] /= total;
}
/* The pattern of head h at position t of block b: p[0 .. t], 0 outside the window. */
static void pattern64(const steer_config *c, int b, int h, int t, const double *q, const double *k,
                      double *p) {
    int H = c->heads, K = c->kv_heads, hd = c->head_dim, first = 0;
    if (c->window && (b + 1) % c->window_every && t >= c->window) first = t - c->window + 1;
    for (int u = 0; u <= t; u++) {
        double score = 0;
        for (int i = 0; i < hd; i++)
            score += q[(t * H + h) * hd + i] * k[(u * K + h / (H / K)) * hd + i];
        p[u] = u < first ? 0 : cap64(score * (double)c->query_scale, (double)c->attn_cap);
    }
    softmax64(p + first, t - first + 1);
}
static void attention64(const steer_config *c, int b, int n, const double *q, const double *k,
                        const double *v, double *z) {
    int H = c->heads, K = c->kv_heads, hd = c->head_dim;
    double p[64];
    for (int t = 0; t < n; t++)
        for (int h = 0; h < H; h++) {
            pattern64(c, b, h, t, q, k, p);
            for (int i = 0; i < hd; i++) {
                double *to = &z[(t * H + h) * hd + i];
                *to = 0;
                for (int u = 0; u <= t; u++) *to += p[u] * v[(u * K + h / (H / K)) * hd + i];
            }
        }
}

/* ---------------------------------------------------------------- kernels, backwards */

/* What a kernel computes, in double: `value` is the sum of dy_i y_i. */
typedef struct {
    const steer_config *c;
    const float *w, *cosine, *sine;
    const double *dy, *matrix;
    double cap;
    int n, rows, gelu, block;
} kernel;
typedef double (*value_of_kernel)(const kernel *, const double *x);

static double norm_value(const kernel *k, const double *x) {
    double y[256], sum = 0;
    norm64(y, x, k->w, k->c);
    for (int i = 0; i < k->n; i++) sum += k->dy[i] * y[i];
    return sum;
}
static double gate_value(const kernel *k, const double *x) { /* x: gates, then ups */
    double sum = 0;
    for (int i = 0; i < k->n; i++) sum += k->dy[i] * act64(x[i], k->gelu) * x[k->n + i];
    return sum;
}
static double cap_value(const kernel *k, const double *x) {
    double sum = 0;
    for (int i = 0; i < k->n; i++) sum += k->dy[i] * cap64(x[i], k->cap);
    return sum;
}
static double softmax_value(const kernel *k, const double *x) {
    double p[256], sum = 0;
    memcpy(p, x, sizeof *p * (size_t)k->n);
    softmax64(p, k->n);
    for (int i = 0; i < k->n; i++) sum += k->dy[i] * p[i];
    return sum;
}
static double rope_value(const kernel *k, const double *x) {
    double sum = 0;
    for (int i = 0; i < k->n; i++) {
        double c = (double)k->cosine[i], s = (double)k->sine[i], a = x[i], b = x[i + k->n];
        sum += k->dy[i] * (a * c - b * s) + k->dy[i + k->n] * (b * c + a * s);
    }
    return sum;
}
static double matrix_value(const kernel *k, const double *x) { /* matrix [rows][n] */
    double sum = 0;
    for (int j = 0; j < k->rows; j++)
        for (int c = 0; c < k->n; c++) sum += k->dy[j] * k->matrix[j * k->n + c] * x[c];
    return sum;
}
static double attention_value(const kernel *k, const double *x) { /* x: q, k, v */
    int q = k->n * k->c->heads * k->c->head_dim, kv = k->n * k->c->kv_heads * k->c->head_dim;
    double *z = doubles(NULL, (size_t)q), sum = 0;
    attention64(k->c, k->block, k->n, x, x + q, x + q + kv, z);
    for (int i = 0; i < q; i++) sum += k->dy[i] * z[i];
    free(z);
    return sum;
}
/* Gradient got [n] of f at x against central differences, at every `step`-th number. */
static double check_slopes(const char *what, value_of_kernel f, const kernel *k, const double *at,
                           int n, int step, const float *got) {
    double *x = malloc(sizeof *x * (size_t)n), h = 1e-5;
    fit off = {0, 0};
    memcpy(x, at, sizeof *x * (size_t)n);
    for (int i = 0; i < n; i += step) {
        x[i] = at[i] + h;
        double up = f(k, x);
        x[i] = at[i] - h;
        hold(&off, (double)got[i], (up - f(k, x)) / (2 * h));
        x[i] = at[i];
    }
    free(x);
    CHECK_THAT(misfit(&off) <= 1e-5, "%s: relative error %.3g", what, misfit(&off));
    return misfit(&off);
}
static double check_elementwise(void) {
    static const int sizes[] = {2, 7, 64, 130};
    double most = 0;
    char what[128];
    for (int i = 0; i < 16; i++) { /* norms: offsets 0 and 1, small and large eps */
        int d = sizes[i % 4];
        steer_config c = {
            .d = d, .norm_offset = (float)(i / 4 % 2), .norm_eps = i < 8 ? 1e-5f : 0.3f};
        float *x = floats(1, i, (size_t)d, 2), *w = floats(2, i, (size_t)d, 1),
              *dy = floats(3, i, (size_t)d, 1), *dx = floats(4, i, (size_t)d, 0.5),
              *before = floats(4, i, (size_t)d, 0.5);
        double *x64 = doubles(x, (size_t)d), *dy64 = doubles(dy, (size_t)d);
        kernel k = {.c = &c, .w = w, .dy = dy64, .n = d};
        rmsnorm_back(dx, dy, x, w, c.norm_offset, c.norm_eps, d);
        for (int j = 0; j < d; j++) dx[j] -= before[j]; /* it adds to what is there */
        snprintf(what, sizeof what, "rmsnorm_back of %d, offset %g, eps %g", d,
                 (double)c.norm_offset, (double)c.norm_eps);
        most = fmax(most, check_slopes(what, norm_value, &k, x64, d, 1, dx));
        free(x), free(w), free(dy), free(dx), free(before), free(x64), free(dy64);
    }
    for (int gelu = 0; gelu < 2; gelu++) { /* gates from -9 to 9, 0 among them */
        enum { N = 181 };
        float gate[N], *up = floats(5, 0, N, 2), *dh = floats(6, 0, N, 1), both[2 * N];
        double x[2 * N], *dy = doubles(dh, N);
        for (int i = 0; i < N; i++) gate[i] = (float)(i - N / 2) / 10;
        for (int i = 0; i < N; i++) x[i] = (double)gate[i], x[N + i] = (double)up[i];
        memcpy(both, dh, sizeof(float) * N);
        gated_back(both, both + N, gate, up, N, gelu);
        kernel k = {.dy = dy, .n = N, .gelu = gelu};
        most = fmax(most, check_slopes(gelu ? "gated_back, GELU" : "gated_back, SiLU", gate_value,
                                       &k, x, 2 * N, 1, both));
        free(up), free(dh), free(dy);
    }
    for (int i = 0; i < 3; i++) { /* soft-caps: none, 2, 30 */
        enum { N = 100 };
        const double caps[] = {0, 2, 30};
        float *x = floats(7, i, N, i == 1 ? 5 : 60), *dy = floats(8, i, N, 1), y[N];
        double *x64 = doubles(x, N), *dy64 = doubles(dy, N);
        memcpy(y, x, sizeof y);
        softcap(y, N, (float)caps[i]);
        softcap_back(dy, y, N, (float)caps[i]);
        kernel k = {.dy = dy64, .n = N, .cap = caps[i]};
        snprintf(what, sizeof what, "softcap_back, cap %g", caps[i]);
        most = fmax(most, check_slopes(what, cap_value, &k, x64, N, 1, dy));
        free(x), free(dy), free(x64), free(dy64);
    }
    for (int n = 2; n <= 200; n += 33) {
        float *x = floats(9, n, (size_t)n, 4), *dy = floats(10, n, (size_t)n, 1),
              *p = floats(9, n, (size_t)n, 4);
        double *x64 = doubles(x, (size_t)n), *dy64 = doubles(dy, (size_t)n);
        softmax(p, n);
        softmax_back(dy, p, n);
        kernel k = {.dy = dy64, .n = n};
        snprintf(what, sizeof what, "softmax_back of %d", n);
        most = fmax(most, check_slopes(what, softmax_value, &k, x64, n, 1, dy));
        free(x), free(p), free(dy), free(x64), free(dy64);
    }
    float one = 1, sure = 1;
    softmax_back(&one, &sure, 1);
    CHECK_THAT(one == 0, "a softmax of one is constant: %g", (double)one);
    for (int half = 1; half <= 64; half = 3 * half + 1) {
        float cosine[64], sine[64], *x = floats(11, half, 2 * (size_t)half, 1),
                                    *dy = floats(12, half, 2 * (size_t)half, 1),
                                    *back = malloc(sizeof(float) * 128);
        double *x64 = doubles(x, 2 * (size_t)half), *dy64 = doubles(dy, 2 * (size_t)half);
        for (int i = 0; i < half; i++)
            cosine[i] = cosf(2.1f * (float)i + 0.4f), sine[i] = sinf(2.1f * (float)i + 0.4f);
        memcpy(back, dy, sizeof(float) * 2 * (size_t)half);
        rope_back(back, cosine, sine, half);
        kernel k = {.dy = dy64, .cosine = cosine, .sine = sine, .n = half};
        snprintf(what, sizeof what, "rope_back of %d pairs", half);
        most = fmax(most, check_slopes(what, rope_value, &k, x64, 2 * half, 1, back));
        free(x), free(dy), free(back), free(x64), free(dy64);
    }
    return most;
}
/* linear with parts of W, both ways: against double sums at every number, against central
 * differences at some. Strides are wider than the part, and what lies between stays as it is. */
static double check_linear(const weight *w, part p, int rows) {
    double most = 0, *M = malloc(sizeof *M * (size_t)p.rows * (size_t)p.cols);
    for (int j = 0; j < p.rows; j++)
        for (int c = 0; c < p.cols; c++) M[j * p.cols + c] = weight_value(w, p.row + j, p.col + c);
    for (int back = 0; back < 2; back++) {
        int in = back ? p.rows : p.cols, out = back ? p.cols : p.rows, xs = in + 3, ys = out + 5;
        float *x = floats(13, back, (size_t)rows * (size_t)xs, 1),
              *y = malloc(4 * (size_t)rows * (size_t)ys);
        double *expected = malloc(sizeof *expected * (size_t)out),
               *weights = doubles(NULL, (size_t)out);
        fit off = {0, 0};
        int spilt = 0;
        char what[96];
        snprintf(what, sizeof what, "linear %s, type %d, %d x %d at %d, %d, %d rows",
                 back ? "back" : "forward", (int)w->type, p.rows, p.cols, p.row, p.col, rows);
        for (int i = 0; i < rows * ys; i++) y[i] = 77;
        linear(y, ys, x, xs, w, p, back, NULL, rows);
        for (int r = 0; r < rows; r++) {
            for (int j = 0; j < out; j++) expected[j] = 0;
            for (int j = 0; j < p.rows; j++)
                for (int c = 0; c < p.cols; c++)
                    expected[back ? c : j] +=
                        M[j * p.cols + c] * (double)x[r * xs + (back ? j : c)];
            for (int j = 0; j < out; j++) hold(&off, (double)y[r * ys + j], expected[j]);
            for (int j = out; j < ys; j++) spilt += y[r * ys + j] != 77;
        }
        CHECK_THAT(misfit(&off) <= 1e-5 && !spilt,
                   "%s: relative error %.3g, %d numbers behind rows", what, misfit(&off), spilt);
        if (back) { /* x is dy: the slopes of x M v in v, wherever v is */
            double *dy = doubles(x + (rows - 1) * xs, (size_t)in);
            kernel k = {.dy = dy, .matrix = M, .rows = p.rows, .n = p.cols};
            most = fmax(most, check_slopes(what, matrix_value, &k, weights, out, 1 + out / 9,
                                           y + (rows - 1) * ys));
            free(dy);
        }
        most = fmax(most, misfit(&off));
        free(x), free(y), free(expected), free(weights);
    }
    free(M);
    return most;
}
static double check_parts(void) {
    static const struct {
        int rows, cols;
        part p;
    } cases[] = {
        {1, 1, {0, 1, 0, 1}},       {3, 5, {0, 3, 0, 5}},         {17, 33, {2, 13, 5, 27}},
        {31, 64, {1, 29, 3, 61}},   {300, 64, {0, 300, 0, 64}},   {300, 64, {7, 290, 33, 31}},
        {70, 320, {0, 70, 0, 320}}, {70, 320, {11, 58, 30, 289}}, {24, 32, {18, 6, 0, 32}},
        {32, 96, {0, 32, 90, 6}},   {32, 96, {0, 32, 6, 6}},      {128, 96, {64, 64, 0, 96}},
        {96, 128, {0, 96, 64, 64}}, {65, 32, {64, 1, 31, 1}}};
    double most = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (dtype type = F32; type <= Q8; type++) {
            if (type == Q8 && cases[i].cols % 32) continue;
            weight w = random_matrix(60, (int)type, (int)i, cases[i].rows, cases[i].cols, 1, type);
            CHECK_THAT(w.type == type, "type %d", (int)w.type);
            for (int rows = 1; rows <= 30; rows += rows < 9 ? 1 : 21)
                most = fmax(most, check_linear(&w, cases[i].p, rows));
            free((void *)w.data), free((void *)w.scale);
        }
    /* The same bits for any number of threads, that is, for any widths of the panels. */
    weight w = random_matrix(61, 0, 0, 270, 150, 1, BF16);
    float *dy = floats(14, 0, 9 * 270, 1), got[2][9 * 150], y[2][9 * 270];
    for (int i = 0; i < 4; i++) {
        int threads = (int[]){1, 2, 3, 64}[i];
        set_threads(threads);
        matmul_back(got[i > 0], dy, &w, 9);
        matmul(y[i > 0], dy, &w, NULL, 9);
        CHECK_THAT(!i || !memcmp(got[0], got[1], sizeof got[0]), "back, %d threads", threads);
        CHECK_THAT(!i || !memcmp(y[0], y[1], sizeof y[0]), "forward, %d threads", threads);
    }
    set_threads(1);
    free(dy), free((void *)w.data), free((void *)w.scale);
    return most;
}
static double check_attention(void) {
    static const struct {
        int heads, kv, hd, n, window, block;
        double cap;
    } cases[] = {{1, 1, 6, 7, 0, 1, 0},  {4, 2, 6, 9, 0, 1, 1.5}, {4, 1, 6, 9, 3, 2, 0},
                 {4, 2, 6, 9, 3, 2, 2},  {4, 2, 6, 9, 3, 1, 2}, /* every second block sees all */
                 {2, 1, 64, 4, 0, 2, 0}, {3, 3, 8, 6, 1, 2, 4}};
    double most = 0;
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
        int H = cases[i].heads, K = cases[i].kv, hd = cases[i].hd, n = cases[i].n,
            b = cases[i].block;
        steer_model m = {.config = {.d = 8,
                                    .layers = 3,
                                    .heads = H,
                                    .kv_heads = K,
                                    .head_dim = hd,
                                    .ff = 8,
                                    .window = cases[i].window,
                                    .window_every = 2,
                                    .attn_cap = (float)cases[i].cap,
                                    .query_scale = 1.3f / sqrtf((float)hd)}};
        size_t q = (size_t)(n * H * hd), kv = (size_t)(n * K * hd), all = q + 2 * kv;
        float *flat = floats(20, i, all, 1.7), *got = malloc(sizeof *got * all), *tapes[3];
        double *x = doubles(flat, all);
        for (int a = 0; a < 3; a++) { /* [depth 2][n][width], only block b's are numbers */
            size_t width = (size_t)((a ? K : H) * hd), at = a ? q + (size_t)(a - 1) * kv : 0;
            tapes[a] = malloc(sizeof(float) * 2 * (size_t)n * width);
            for (size_t j = 0; j < 2 * (size_t)n * width; j++) tapes[a][j] = NAN;
            memcpy(tapes[a] + (size_t)(b - 1) * (size_t)n * width, flat + at,
                   sizeof(float) * (size_t)n * width);
        }
        steer_tape tape = {.q = tapes[0], .k = tapes[1], .v = tapes[2], .rows = n, .first = 1};
        back_scratch s = {0};
        float *heap = zeros(4 * q + 3 * (size_t)(H * n), sizeof *heap);
        s.dz = heap, s.dq = s.dz + q, s.dk = s.dq + q, s.dv = s.dk + q;
        s.capped = s.dv + q, s.p = s.capped + H * n, s.dp = s.p + H * n;
        for (size_t j = 0; j < q; j++) s.dq[j] = s.dk[j] = s.dv[j] = NAN;
        float *dz = floats(21, i, q, 1);
        memcpy(s.dz, dz, sizeof(float) * q);
        for (int h = 0; h < H; h++) attend_back(&m, &tape, &s, b, h, n);
        memcpy(got, s.dq, sizeof(float) * q);
        for (size_t j = 0; j < 2 * kv; j++) { /* k and v: the sum over the group's heads */
            size_t at = j % kv, t = at / (size_t)(K * hd), g = at / (size_t)hd % (size_t)K,
                   group = (size_t)(H / K);
            double sum = 0;
            for (size_t h = g * group; h < (g + 1) * group; h++)
                sum += (double)(j < kv ? s.dk
                                       : s.dv)[(t * (size_t)H + h) * (size_t)hd + at % (size_t)hd];
            got[q + j] = (float)sum;
        }
        double *dz64 = doubles(dz, q);
        kernel k = {.c = &m.config, .dy = dz64, .n = n, .block = b};
        char what[128];
        for (int a = 0; a < 3; a++) { /* q, k, v each by its own largest */
            double *inputs = x;
            size_t at = a ? q + (size_t)(a - 1) * kv : 0, size = a ? kv : q;
            fit off = {0, 0};
            for (size_t j = at; j < at + size; j++) {
                double was = inputs[j], h = 1e-5;
                inputs[j] = was + h;
                double up = attention_value(&k, inputs);
                inputs[j] = was - h;
                hold(&off, (double)got[j], (up - attention_value(&k, inputs)) / (2 * h));
                inputs[j] = was;
            }
            snprintf(what, sizeof what, "attend_back, case %d, d%c", i, "qkv"[a]);
            CHECK_THAT(misfit(&off) <= 1e-5, "%s: relative error %.3g", what, misfit(&off));
            most = fmax(most, misfit(&off));
        }
        free(flat), free(got), free(x), free(dz), free(dz64), free(heap);
        for (int a = 0; a < 3; a++) free(tapes[a]);
    }
    return most;
}
static void test_kernels_back(void) {
    double elementwise = check_elementwise(), parts = check_parts(), attention = check_attention();
    printf("  relative errors against central differences: norms, gates, caps, softmax, rope %.2g; "
           "linear %.2g; attention %.2g\n",
           elementwise, parts, attention);
}

/* ---------------------------------------------------------------- the backward of whole models */

/* The blocks >= layer in double, from start [n][d] to the product of RN(x_L) with weights [n][d];
 * `push` [n][d] is added to a contribution (index as in gradients.out), to a slot's input, or to
 * what that slot's norm reads. Where edges are cut, slots read the nodes of another run. */
enum { PUSH_OUT, PUSH_IN, PUSH_STREAM };
enum { MOST_N = 12, MOST_D = 20, MOST_Q = 32, MOST_FF = 36 };
typedef struct {
    const steer_model *m;
    int layer, n, kind, index;
    const double *start, *weights, *push;
    const unsigned char *cut; /* [slots][nodes], or NULL */
    const double *other;      /* [nodes][n][d] what cut edges bring instead of `nodes` */
    double *nodes, *final;    /* out: [nodes][n][d], RN(x_L) [n][d]; or NULL */
} pushed;
static void push(const pushed *p, int kind, int index, int t, double step, double *to) {
    int d = p->m->config.d;
    for (int i = 0; i < d && kind == p->kind && index == p->index; i++)
        to[i] += step * p->push[t * d + i];
}
static void slot_input64(const pushed *p, int slot, int t, double step, const double *x,
                         const float *norm, double *in) {
    const steer_config *c = &p->m->config;
    double at[MOST_D];
    int nodes = 1 + (c->layers - p->layer) * (c->heads + 1);
    memcpy(at, x, sizeof *at * (size_t)c->d);
    for (int u = 0; u < nodes && p->cut; u++)
        for (int i = (u * p->n + t) * c->d, k = 0; k < c->d && p->cut[slot * nodes + u]; k++)
            at[k] += p->other[i + k] - p->nodes[i + k];
    push(p, PUSH_STREAM, slot, t, step, at);
    norm64(in, at, norm, c);
    push(p, PUSH_IN, slot, t, step, in);
}
static void keep_node(const pushed *p, int u, int t, const double *x) {
    size_t d = (size_t)p->m->config.d;
    if (p->nodes) memcpy(p->nodes + (size_t)(u * p->n + t) * d, x, sizeof *x * d);
}
static double pushed_value(const pushed *p, double step) {
    const steer_model *m = p->m;
    const steer_config *c = &m->config;
    int d = c->d, H = c->heads, K = c->kv_heads, hd = c->head_dim, width = H + 2 * K + 1;
    double x[MOST_N][MOST_D], q[MOST_N * MOST_Q], k[MOST_N * MOST_Q], v[MOST_N * MOST_Q],
        z[MOST_N * MOST_Q], in[MOST_D], out[MOST_D], gate[MOST_FF], up[MOST_FF], sum = 0;
    for (int t = 0; t < p->n; t++) {
        memcpy(x[t], p->start + t * d, sizeof **x * (size_t)d);
        push(p, PUSH_OUT, 0, t, step, x[t]);
        keep_node(p, 0, t, x[t]);
    }
    for (int b = p->layer; b < c->layers; b++) {
        const block *w = &m->blocks[b];
        int i = b - p->layer;
        for (int t = 0; t < p->n; t++)
            for (int s = 0; s < width - 1; s++) {
                int g = s < H ? s : (s - H) % K, kind = s < H ? 0 : 1 + (s - H) / K;
                double *to =
                    kind == 0 ? q + (t * H + g) * hd : (kind == 1 ? k : v) + (t * K + g) * hd;
                slot_input64(p, i * width + s, t, step, x[t], w->attn_norm, in);
                product64(to,
                          kind == 0   ? &w->q
                          : kind == 1 ? &w->k
                                      : &w->v,
                          g * hd, hd, in,
                          kind == 0   ? w->q_bias
                          : kind == 1 ? w->k_bias
                                      : w->v_bias);
                for (int j = 0; j < hd / 2 && kind < 2; j++) {
                    double angle = t * (double)m->rope_freq[j], a = to[j], e = to[j + hd / 2];
                    to[j] = a * cos(angle) - e * sin(angle);
                    to[j + hd / 2] = e * cos(angle) + a * sin(angle);
                }
            }
        attention64(c, b, p->n, q, k, v, z);
        for (int t = 0; t < p->n; t++) {
            product64(out, &w->o, 0, d, z + t * H * hd, NULL);
            double r = c->post_norms ? inverse_rms64(out, (double)c->norm_eps, d) : 1,
                   share[MOST_D];
            for (int h = 0; h < H && p->nodes;
                 h++) { /* each head's part, under the whole's scalar */
                for (int j = 0; j < d; j++) {
                    share[j] = 0;
                    for (int s = 0; s < hd; s++)
                        share[j] += weight_value(&w->o, j, h * hd + s) * z[(t * H + h) * hd + s];
                    if (c->post_norms)
                        share[j] *= r * ((double)c->norm_offset + (double)w->post_attn_norm[j]);
                }
                keep_node(p, 1 + i * (H + 1) + h, t, share);
            }
            if (c->post_norms) norm64(out, out, w->post_attn_norm, c);
            for (int j = 0; j < d; j++) x[t][j] += out[j];
            push(p, PUSH_OUT, 1 + 2 * i, t, step, x[t]);
            slot_input64(p, i * width + width - 1, t, step, x[t], w->mlp_norm, in);
            product64(gate, &w->gate, 0, c->ff, in, NULL),
                product64(up, &w->up, 0, c->ff, in, NULL);
            for (int j = 0; j < c->ff; j++) gate[j] = act64(gate[j], c->gelu) * up[j];
            product64(out, &w->down, 0, d, gate, NULL);
            if (c->post_norms) norm64(out, out, w->post_mlp_norm, c);
            keep_node(p, 1 + i * (H + 1) + H, t, out);
            for (int j = 0; j < d; j++) x[t][j] += out[j];
            push(p, PUSH_OUT, 2 + 2 * i, t, step, x[t]);
        }
    }
    for (int t = 0; t < p->n; t++) {
        slot_input64(p, (c->layers - p->layer) * width, t, step, x[t], m->final_norm, in);
        for (int j = 0; j < d && p->weights; j++) sum += p->weights[t * d + j] * in[j];
        if (p->final) memcpy(p->final + t * d, in, sizeof *in * (size_t)d);
    }
    return sum;
}
/* Every gradient of the backward (contributions, slots, slots before their norms) along random
 * directions: a float's difference quotient would be too noisy, so the model runs in double. */
static double check_backward(int kind) {
    enum { N = 9, DIRECTIONS = 3 };
    traced w = {0};
    steer_error e = {0};
    if (!open_traced(&w, kind, N, 4, 1, 0)) return INFINITY;
    tracer *t = &w.t;
    int d = w.m->config.d, blocks = t->graph.blocks;
    size_t plane = (size_t)(N * d);
    changes plan = {.add = w.v, .coeff = 0.7f, .layer = 1};
    const steer_plan *plans = plan_of(&plan);
    CHECK_THAT(!run_example(t, &w.x, &plans, 1, &t->tape[2], &e), "%s", e.text);
    float *weights = floats(96, kind, plane, 1), *alone = malloc(sizeof(float) * plane);
    double *start = doubles(NULL, plane), *weights64 = doubles(weights, plane), most = 0;
    for (size_t i = 0; i < plane; i++) start[i] = (double)t->tape[2].resid[i];
    memcpy(t->dx, weights, sizeof(float) * plane), memcpy(alone, weights, sizeof(float) * plane);
    t->grad.n = N;
    t->grad.share = 1;
    backward(t->c, &t->tape[2], N, t->dx, &t->back, &t->grad);
    pushed p = {.m = w.m, .layer = 1, .n = N, .start = start, .weights = weights64};
    for (p.kind = PUSH_OUT; p.kind <= PUSH_STREAM; p.kind++) {
        const float *all = p.kind == PUSH_OUT  ? t->grad.out
                           : p.kind == PUSH_IN ? t->grad.in
                                               : t->grad.aware;
        int n = p.kind == PUSH_OUT ? 1 + 2 * blocks : t->graph.slots;
        for (p.index = 0; p.index < n; p.index++) {
            const float *g = all + plane * (size_t)p.index;
            fit off = {0, 0};
            for (int k = 0; k < DIRECTIONS; k++) {
                float *along = floats(97 + k, p.index, plane, 1);
                double *along64 = doubles(along, plane), expected, sum = 0, h = 1e-5;
                p.push = along64;
                expected = (pushed_value(&p, h) - pushed_value(&p, -h)) / (2 * h);
                for (size_t i = 0; i < plane; i++) sum += (double)g[i] * along64[i];
                hold(&off, sum, expected);
                free(along), free(along64);
            }
            most = fmax(most, misfit(&off));
            CHECK_THAT(misfit(&off) <= 2e-5, "%s: %s %d: relative error %.3g", family_names[kind],
                       p.kind == PUSH_OUT  ? "out"
                       : p.kind == PUSH_IN ? "in"
                                           : "aware",
                       p.index, misfit(&off));
        }
    }
    CHECK_THAT(!memcmp(t->dx, t->grad.out, sizeof(float) * plane), "dx is not the site's gradient");
    backward(t->c, &t->tape[2], N, alone, &t->back, NULL);
    CHECK_THAT(!memcmp(alone, t->dx, sizeof(float) * plane), "dx depends on what is kept");
    free(weights), free(alone), free(start), free(weights64);
    close_traced(&w);
    return most;
}

/* What must hold after `attribute`, from its tapes and sums. Returns the largest relative error. */
static double check_attribution(tracer *t, const example *x, double *scores, const char *name) {
    const steer_model *m = t->m;
    const steer_config *c = &m->config;
    int source = !x->steered_text, n = x->n, d = c->d, H = c->heads, K = c->kv_heads,
        width = H + 2 * K + 1, nodes = t->graph.nodes, blocks = t->graph.blocks, hd = c->head_dim;
    size_t plane = (size_t)(n * d), at_block = (size_t)t->max * (size_t)d;
    const steer_tape *src = &t->tape[source], *dst = &t->tape[!source];
    fit into = {0, 0}, split = {0, 0}, node = {0, 0}, coarse[3] = {{0, 0}, {0, 0}, {0, 0}};
    /* 3.8: all scores into a slot add up to <x_src - x_dst, J^T G>, the official ones to <.., G> */
    for (int i = 0; i < 2 * t->graph.slots; i++) {
        int v = i / 2, form = i % 2;
        double found = 0, expected = 0;
        const float *G = form ? t->grad.aware : t->grad.in;
        for (int u = 0; u < nodes; u++) found += edges_of(t, scores, form)[v * nodes + u];
        for (int p = 0; p < n; p++)
            for (int k = 0; k < d; k++) {
                int b = v / width, mlp = v % width == width - 1;
                size_t at = (size_t)b * at_block + (size_t)(p * d + k);
                double shift = mlp ? (double)src->mid[at] - (double)dst->mid[at]
                                   : (double)src->resid[at] - (double)dst->resid[at];
                expected += shift * (double)G[(size_t)v * plane + (size_t)(p * d + k)];
            }
        hold(&into, found, expected);
    }
    CHECK_THAT(misfit(&into) <= 2e-5 && into.largest > 1e-3,
               "%s: scores into a slot: relative error %.3g of %.3g", name, misfit(&into),
               into.largest);
    /* The gradient is the sum of its parts, and no part is counted twice. */
    fit whole = {0, 0};
    for (size_t k = 0; k < plane; k++) {
        const float *out = t->grad.out + k, *in = t->grad.aware + k;
        hold(&whole, (double)out[plane * (size_t)(2 * blocks)],
             (double)in[plane * (size_t)(t->graph.slots - 1)]);
        for (int b = 0; b < blocks; b++) {
            size_t slot = (size_t)(b * width);
            double sum = (double)out[plane * (size_t)(1 + 2 * b)];
            hold(&whole, sum,
                 (double)out[plane * (size_t)(2 + 2 * b)] +
                     (double)in[plane * (slot + (size_t)width - 1)]);
            for (int i = 0; i < width - 1; i++) sum += (double)in[plane * (slot + (size_t)i)];
            hold(&whole, (double)out[plane * (size_t)(2 * b)], sum);
        }
    }
    CHECK_THAT(misfit(&whole) <= 2e-5, "%s: gradients are not the sum of their parts: %.3g", name,
               misfit(&whole));
    /* 3.10.2: heads and MLPs add up to what the residual gains, at every boundary; a node's effect
     * is <Delta, out>, the site's dimension by dimension. */
    for (int k = 0; k < d; k++) {
        double sum = 0;
        for (int p = 0; p < n; p++)
            sum += ((double)src->resid[p * d + k] - (double)dst->resid[p * d + k]) *
                   (double)t->grad.out[p * d + k];
        hold(&node, dvector_of(t, scores)[k], sum);
    }
    for (int b = 0; b < blocks; b++) {
        node_deltas(t, source, t->graph.layer + b, n);
        for (int h = 0; h <= H; h++) {
            double sum = 0;
            for (size_t k = 0; k < plane; k++)
                sum += (double)t->delta[plane * (size_t)h + k] *
                       (double)t->grad.out[plane * (size_t)(1 + 2 * b + (h == H)) + k];
            hold(&node, scores[SCORE_NODES + 1 + b * (H + 1) + h], sum);
        }
        for (int p = 0; p < n; p++)
            for (int k = 0; k < d; k++) {
                size_t i = (size_t)(p * d + k), here = (size_t)b * at_block + i;
                double sum = 0, before = (double)src->resid[here] - (double)dst->resid[here],
                       between = (double)src->mid[here] - (double)dst->mid[here],
                       after = (double)src->resid[here + at_block] -
                               (double)dst->resid[here + at_block];
                for (int h = 0; h < H; h++) sum += (double)t->delta[plane * (size_t)h + i];
                hold(&split, before + sum, between);
                hold(&split, between + (double)t->delta[plane * (size_t)H + i], after);
            }
    }
    CHECK_THAT(misfit(&node) <= 2e-5, "%s: effects of nodes: relative error %.3g", name,
               misfit(&node));
    CHECK_THAT(misfit(&split) <= 2e-5, "%s: deltas do not add up to the residual: %.3g", name,
               misfit(&split));
    /* 3.10.4: after the last step the first block's dq, dk, dv are still there; the coarse slot's
     * gradient is their product with the whole matrix. */
    double most = fmax(fmax(misfit(&into), misfit(&split)), fmax(misfit(&whole), misfit(&node)));
    if (t->grad.share == 1) {
        const block *w = &m->blocks[t->graph.layer];
        int first[4] = {0, H, H + K, H + 2 * K};
        for (int kind = 0; kind < 3; kind++) {
            int heads = first[kind + 1] - first[kind];
            const float *from = kind == 0 ? t->back.dq : kind == 1 ? t->back.dk : t->back.dv;
            float *dy = malloc(sizeof(float) * (size_t)(n * heads * hd)),
                  *G = malloc(sizeof(float) * plane);
            for (int p = 0; p < n; p++)
                for (int h = 0; h < heads; h++)
                    memcpy(dy + (p * heads + h) * hd, from + (p * H + h * (H / heads)) * hd,
                           sizeof(float) * (size_t)hd);
            matmul_back(G, dy, kind == 0 ? &w->q : kind == 1 ? &w->k : &w->v, n);
            for (size_t k = 0; k < plane; k++) {
                double sum = 0;
                for (int i = first[kind]; i < first[kind + 1]; i++)
                    sum += (double)t->grad.in[plane * (size_t)i + k];
                hold(&coarse[kind], sum, (double)G[k]);
            }
            CHECK_THAT(misfit(&coarse[kind]) <= 1e-5 && coarse[kind].largest > 1e-6,
                       "%s: coarse %c: %.3g of %.3g", name, "qkv"[kind], misfit(&coarse[kind]),
                       coarse[kind].largest);
            most = fmax(most, misfit(&coarse[kind]));
            free(dy), free(G);
        }
    }
    return most;
}
/* A box model, its DIM vector from 16 + 16 prompts, and greedy answers to a harmless prompt without
 * and with the vector. */
typedef struct {
    steer_model *m;
    steer_vector v;
    int tokens[2][160], n[2], prompt;
} boxed;
static int open_boxed(boxed *b, const char *path, int layer, int pos) {
    static const char *const files[] = {"weights/harmful-train.txt", "weights/harmless-train.txt",
                                        "weights/harmless-test.txt"};
    enum { FRESH = 24 };
    steer_prompts p[3] = {0};
    steer_error e = {0};
    steer_limits l = {.streams = 16, .positions = 160, .rows = 256};
    if (!(b->m = open_or_fail(path))) return 0;
    steer_context *c = steer_context_new(b->m, &l, &e);
    double *mean[2];
    CHECK_THAT(c, "%s", e.text);
    for (int k = 0; k < 3; k++)
        CHECK_THAT(!steer_prompts_load(&p[k], b->m, files[k], 16, &e), "%s", e.text);
    for (int k = 0; k < 2; k++) {
        mean[k] =
            zeros(3 * (size_t)(b->m->eoi * b->m->config.layers * b->m->config.d), sizeof(double));
        CHECK_THAT(steer_means(c, &p[k], 0, mean[k], NULL, &e) == 16, "%s", e.text);
    }
    CHECK_THAT(!steer_dim(&b->v, b->m, mean[0], mean[1], layer, pos, 1, &e), "%s", e.text);
    changes plan = {.add = b->v.v, .coeff = 1, .layer = layer};
    steer_job jobs[2];
    b->prompt = p[2].lengths[3];
    for (int k = 0; k < 2; k++) {
        memcpy(b->tokens[k], p[2].tokens[3], sizeof(int) * (size_t)b->prompt);
        jobs[k] = (steer_job){.prompt = p[2].tokens[3],
                              .n_prompt = b->prompt,
                              .max_new = FRESH,
                              .out = b->tokens[k] + b->prompt,
                              .plan = k ? plan_of(&plan) : NULL};
    }
    CHECK_THAT(b->prompt < 100 && !steer_generate(c, jobs, 2, NULL, NULL, &e), "%s", e.text);
    for (int k = 0; k < 2; k++) b->n[k] = b->prompt + jobs[k].n_out;
    for (int k = 0; k < 3; k++) steer_prompts_free(&p[k]);
    steer_context_free(c), free(mean[0]), free(mean[1]);
    return 1;
}
static void close_boxed(boxed *b) { steer_vector_free(&b->v), steer_close(b->m); }

/* Patterns of a tape: of the rows that a head sees, adding up to 1, and with the values giving z. */
static void check_patterns(int kind) {
    enum { N = 9 };
    traced w = {0};
    steer_error e = {0};
    if (!open_traced(&w, kind, N, 4, 1, 1)) return;
    const steer_config *c = &w.m->config;
    int hd = c->head_dim, qd = c->heads * hd, kd = c->kv_heads * hd, group = c->heads / c->kv_heads;
    steer_tape *t = &w.t.tape[1];
    CHECK_THAT(!run_ends(&w.t, &w.x, w.v, &e), "%s", e.text);
    fit off = {0, 0};
    float pattern[N * N];
    for (int b = 1; b < c->layers; b++)
        for (int h = 0; h < c->heads; h++) {
            CHECK_THAT(!steer_pattern(w.m, t, b, h, 0, N, pattern, &e), "%s", e.text);
            for (int i = 0; i < N; i++) {
                double sum = 0;
                int unseen = 0;
                for (int u = 0; u < N; u++) {
                    sum += (double)pattern[i * N + u];
                    unseen += pattern[i * N + u] != 0 && (u > i || u < window_first(c, b, i));
                }
                CHECK_THAT(fabs(sum - 1) < 1e-6 && !unseen, "%s: row %d adds up to %g, %d unseen",
                           family_names[kind], i, sum, unseen);
                for (int k = 0; k < hd; k++) {
                    double z = 0;
                    for (int u = 0; u <= i; u++)
                        z += (double)pattern[i * N + u] *
                             (double)tape_at(t, t->v, kd, b, u)[h / group * hd + k];
                    hold(&off, (double)tape_at(t, t->z, qd, b, i)[h * hd + k], z);
                }
            }
        }
    CHECK_THAT(misfit(&off) < 1e-5, "%s: patterns times values: relative error %.2g",
               family_names[kind], misfit(&off));

    /* Heads, blocks and rows that the tape does not have. */
    const int none[][4] = {{0, 0, 0, N},  {c->layers, 0, 0, N}, {1, -1, 0, N}, {1, c->heads, 0, N},
                           {1, 0, -1, N}, {1, 0, 1, t->rows},   {1, 0, 0, 0},  {1, 0, 0, INT_MAX}};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        CHECK_THAT(steer_pattern(w.m, t, none[i][0], none[i][1], none[i][2], none[i][3], pattern,
                                 &e) == STEER_EARG && strstr(e.text, "no pattern"),
                   "pattern %zu: %s", i, e.text);
    steer_tape bare = *t;
    bare.k = NULL;
    CHECK_THAT(steer_pattern(w.m, &bare, 1, 0, 0, N, pattern, &e) == STEER_EARG, "without keys");

    /* Scores are what is asked for, whatever else is. */
    size_t edges = edge_cells(&w.t.graph);
    double *all = zeros(scores_width(&w.t), sizeof *all), *edge = zeros(edges, sizeof *edge);
    steer_scores some = {.edge = edge, .positions = -1}, nothing = {.total = 7};
    CHECK_THAT(!attribute(&w.t, &w.x, w.v, STEER_LOGIT, 2, all, &e) &&
                   !steer_attribute(&w.t, &w.x, w.v, STEER_LOGIT, 2, &some, &e) &&
                   !steer_attribute(&w.t, &w.x, w.v, STEER_LOGIT, 2, &nothing, &e),
               "%s", e.text);
    CHECK_THAT(!memcmp(edge, edges_of(&w.t, all, 0), edges * sizeof *edge) &&
                   some.positions == all[SCORE_POSITIONS] && some.total == nothing.total &&
                   some.total == all[SCORE_TOTAL] && nothing.estimate == all[SCORE_ESTIMATE],
               "%s: other scores where fewer are asked for", family_names[kind]);
    free(all), free(edge), close_traced(&w);
}
static void test_patterns(void) {
    for (int kind = 0; kind < FAMILIES; kind++) check_patterns(kind);
}
static void test_backward_whole(void) {
    static const struct {
        const char *path;
        int layer, pos;
    } sites[] = {{"weights/tiny-llama.bin", 1, -4}, {"weights/tiny-gemma.bin", 1, -3}};
    double gradients_off = 0, identity = 0, gap[2] = {0, 0}, whole = 0;
    steer_error e = {0};
    for (int kind = 0; kind < FAMILIES; kind++) {
        gradients_off = fmax(gradients_off, check_backward(kind));
        for (int text = 0; text < 2; text++) {
            traced w = {0};
            if (!open_traced(&w, kind, 11, 4, 7, text)) continue;
            size_t width = scores_width(&w.t);
            double *scores[2] = {zeros(width, sizeof(double)), zeros(width, sizeof(double))},
                   node[2][64] = {{0}};
            for (int steps = 3; steps; steps = steps == 3 ? 1 : 0) {
                CHECK_THAT(!attribute(&w.t, &w.x, w.v, STEER_LOGIT, steps, scores[0], &e),
                           "%s", e.text);
                CHECK_THAT(scores[0][SCORE_POSITIONS] > 0, "%s: no positions of interest",
                           family_names[kind]);
                identity =
                    fmax(identity, check_attribution(&w.t, &w.x, scores[0], family_names[kind]));
            }
            /* 3.10.3: m(source) >= 0 >= m(destination) */
            int n_poi = find_poi(&w.t, &w.x, STEER_LOGIT), source = !text;
            double m[2];
            for (int k = 0; k < 2; k++)
                m[k] = metric_of(&w.t, STEER_LOGIT, source, w.t.final[k ? source : !source], n_poi);
            CHECK_THAT(m[1] >= 0 && m[0] <= 0 && fabs(m[1] - m[0] - scores[0][SCORE_TOTAL]) < 1e-9,
                       "m %g, %g, total %g", m[1], m[0], scores[0][SCORE_TOTAL]);
            /* Patching the vector's own node is the whole effect. Threads change no bits. */
            for (int i = 0; i < (text ? 3 : 1); i++) {
                set_threads(1 << i);
                traced again = {0};
                if (!open_traced(&again, kind, 11, 4, 7, text)) continue;
                CHECK_THAT(
                    !attribute(&again.t, &again.x, again.v, STEER_LOGIT, 1, scores[1], &e) &&
                        !steer_patch_exactly(&again.t, &again.x, again.v, node[i > 0], NULL, &e),
                    "%s", e.text);
                CHECK_THAT(!memcmp(scores[0], scores[1], width * sizeof(double)) &&
                               (!i || !memcmp(node[0], node[1], sizeof node[0])),
                           "%s: scores differ on %d threads", family_names[kind], 1 << i);
                close_traced(&again);
            }
            set_threads(1);
            double off = fabs(node[0][0] / scores[0][SCORE_TOTAL] - 1);
            whole = fmax(whole, off);
            CHECK_THAT(off <= 1e-4, "%s: the vector's node, patched, gives %g of %g",
                       family_names[kind], node[0][0], scores[0][SCORE_TOTAL]);
            free(scores[0]), free(scores[1]), close_traced(&w);
        }
    }
    for (int i = 0; i < 2; i++) { /* 3.10.1: completeness */
        boxed b = {0};
        if (!open_boxed(&b, sites[i].path, sites[i].layer, sites[i].pos)) continue;
        for (int text = 0; text < 2; text++) {
            tracer t = {0};
            example x = {b.tokens[text], b.n[text], b.prompt, 1, text};
            CHECK_THAT(!new_tracer(&t, b.m, sites[i].layer, x.n, x.n - x.n_prompt + 1, 1, &e), "%s",
                       e.text);
            double *scores = zeros(scores_width(&t), sizeof *scores);
            for (int k = 0; k < 2; k++) {
                int steps = !k ? 10 : SANITIZED ? 24 : 64;
                CHECK_THAT(!attribute(&t, &x, b.v.v, STEER_LOGIT, steps, scores, &e), "%s",
                           e.text);
                double off = fabs(scores[SCORE_ESTIMATE] / scores[SCORE_TOTAL] - 1), sum = 0;
                for (int j = 0; j < b.m->config.d; j++) sum += dvector_of(&t, scores)[j];
                gap[k] = fmax(gap[k], isnan(off) ? INFINITY : off);
                CHECK_THAT(scores[SCORE_POSITIONS] > 0 && scores[SCORE_TOTAL] > 0.5 &&
                               fabs(sum - scores[SCORE_ESTIMATE]) < 1e-9,
                           "%s: %g positions, total %g", sites[i].path, scores[SCORE_POSITIONS],
                           scores[SCORE_TOTAL]);
                CHECK_THAT(off <= (k ? 1e-3 : 1e-2), "%s, %s text, %d steps: %g of %g",
                           sites[i].path, text ? "steered" : "base", steps, scores[SCORE_ESTIMATE],
                           scores[SCORE_TOTAL]);
                if (!k) identity = fmax(identity, check_attribution(&t, &x, scores, sites[i].path));
            }
            free(scores), free_tracer(&t);
        }
        close_boxed(&b);
    }
    printf("  relative errors: gradients %.2g, identities %.2g, the vector's own node %.2g; "
           "completeness "
           "gap %.2g at 10 steps, %.2g at 64 (24 when slow)\n",
           gradients_off, identity, whole, gap[0], gap[1]);
}

/* ---------------------------------------------------------------- circuits */

static steer_graph graph_of(int layers, int layer, int heads, int kv_heads) {
    steer_model m = {.config = {.layers = layers, .heads = heads, .kv_heads = kv_heads}};
    return steer_graph_of(&m, layer);
}
/* The graph told again, from the slots' order in steer.h: does node u come before slot v? */
static int is_edge(const steer_graph *g, int u, int v) {
    int width = g->heads + 2 * g->kv_heads + 1, to = v / width, mlp = v % width == width - 1;
    if (u == 0 || v == g->slots - 1) return 1;
    int from = (u - 1) / (g->heads + 1), is_head = (u - 1) % (g->heads + 1) < g->heads;
    return from < to || (from == to && is_head && mlp);
}
/* The nodes behind slot v, into behind[]; how many. 0: the output. */
static int nodes_behind(const steer_graph *g, int v, int *behind) {
    int width = g->heads + 2 * g->kv_heads + 1, base = 1 + v / width * (g->heads + 1),
        i = v % width, n = 0;
    if (v == g->slots - 1) return 0;
    for (int h = 0; h < g->heads; h++)
        if (i < g->heads
                ? h == i
                : i < width - 1 && h / (g->heads / g->kv_heads) == (i - g->heads) % g->kv_heads)
            behind[n++] = base + h;
    if (i == width - 1) behind[n++] = base + g->heads;
    return n;
}
/* Follow every path of kept edges from node u; mark those that arrive. Returns whether one does. */
static int follow(const steer_graph *g, const unsigned char *kept, int u, unsigned char *on_path) {
    int arrives = 0, behind[64];
    for (int v = 0; v < g->slots; v++) {
        if (!is_edge(g, u, v) || !kept[v * g->nodes + u]) continue;
        int n = nodes_behind(g, v, behind), through = !n;
        for (int i = 0; i < n; i++) through |= follow(g, kept, behind[i], on_path);
        if (through) on_path[v * g->nodes + u] = 1;
        arrives |= through;
    }
    return arrives;
}
static int count_of(const unsigned char *a, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] != 0;
    return sum;
}
/* Every edge has ends, whose numbers are the edge's; other numbers have none, nor names. */
static void check_numbers(const steer_graph *g) {
    int edges = 0, wrong = 0, size = g->slots * g->nodes;
    for (int i = -2; i < size + 2; i++) {
        steer_edge_ends x = {.to = -7};
        char name[64] = "?";
        int known = i >= 0 && i < size && is_edge(g, i % g->nodes, i / g->nodes);
        int said = steer_edge_of(g, i, &x), length = steer_edge_name(g, i, name, sizeof name);
        wrong += said != known || (length > 0) != known || length != (int)strlen(name);
        if (!said) {
            wrong += x.to != -7;
            continue;
        }
        int node = steer_node(g, x.from, x.head), slot = steer_slot(g, x.to, x.input, x.index);
        wrong += node != i % g->nodes || slot != i / g->nodes || steer_edge(g, node, slot) != i;
        edges++;
    }
    CHECK_THAT(!wrong && edges == g->edges, "%d edges' numbers are wrong, of %d", wrong, edges);
}
static void check_names(void) {
    const steer_graph g = graph_of(6, 2, 4, 2), none = graph_of(6, 6, 4, 2), *q = &g;
    const struct {
        int node, slot;
        const char *name;
    } known[] = {{0, steer_slot(q, 2, STEER_TO_V, 1), "s > v 2.1"},
                 {steer_node(q, 2, 3), steer_slot(q, 2, STEER_TO_MLP, 0), "head 2.3 > mlp 2"},
                 {steer_node(q, 2, -1), steer_slot(q, 4, STEER_TO_Q, 3), "mlp 2 > q 4.3"},
                 {steer_node(q, 3, 0), steer_slot(q, 5, STEER_TO_K, 0), "head 3.0 > k 5.0"},
                 {steer_node(q, 5, -1), steer_slot(q, 6, STEER_TO_LOGITS, 0), "mlp 5 > lm_head"}};
    char name[64];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        steer_edge_name(q, steer_edge(q, known[i].node, known[i].slot), name, sizeof name);
        CHECK_THAT(!strcmp(name, known[i].name), "\"%s\", not \"%s\"", name, known[i].name);
    }
    int length = steer_edge_name(q, steer_edge(q, 0, 0), name, 4);
    CHECK_THAT(length == 9 && !strcmp(name, "s >"), "cut to 3 bytes: %d, \"%s\"", length, name);

    /* Numbers that are none: of another block, head, group or kind. */
    int none_of[] = {steer_node(q, 1, 0),
                     steer_node(q, 6, 0),
                     steer_node(q, 2, 4),
                     steer_node(q, 2, -2),
                     steer_node(q, -1, 0),
                     steer_node(&none, -1, -1),
                     steer_slot(q, 1, STEER_TO_Q, 0),
                     steer_slot(q, 6, STEER_TO_Q, 0),
                     steer_slot(q, 2, STEER_TO_K, 2),
                     steer_slot(q, 2, STEER_TO_MLP, 1),
                     steer_slot(q, 5, STEER_TO_LOGITS, 0),
                     steer_slot(q, 2, (steer_input)7, 0),
                     steer_edge(q, steer_node(q, 2, 0), steer_slot(q, 2, STEER_TO_Q, 0)),
                     steer_edge(q, -1, 3),
                     steer_edge(q, 0, g.slots),
                     steer_edge(q, 0, -1)};
    for (size_t i = 0; i < sizeof none_of / sizeof *none_of; i++)
        CHECK_THAT(none_of[i] == -1, "number %zu is %d", i, none_of[i]);

    /* Graphs and orders that are none. */
    steer_graph wrong[] = {g, g, g, g, none, g, g};
    wrong[0].nodes++, wrong[1].slots--, wrong[2].kv_heads = 3, wrong[3].layer = -1;
    wrong[5].blocks = INT_MAX, wrong[6].edges--;
    int order[4096];
    unsigned char kept[8192];
    steer_error e = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_THAT(steer_circuit_order(&wrong[i], NULL, 1, order, &e) == STEER_EARG &&
                       steer_circuit_select(&wrong[i], order, 1, STEER_SIMPLE, kept, &e) == -1 &&
                       steer_circuit_prune(&wrong[i], kept, NULL) == -1 &&
                       steer_circuit_cut(&wrong[i], kept, 0, kept, NULL) == STEER_EARG &&
                       strstr(e.text, "graph"),
                   "graph %zu: %s", i, e.text);
    CHECK_THAT(g.edges <= 4096 && g.slots * g.nodes <= 8192 &&
                   !steer_circuit_order(q, NULL, 1, order, &e),
               "%s", e.text);
    for (int i = 0; i < 3; i++) {
        static const int strange[] = {-1, INT_MAX, 1 /* node 1 sends to no query of its block */};
        order[7] = strange[i];
        CHECK_THAT(steer_circuit_select(q, order, 9, STEER_FORWARD, kept, &e) == -1 &&
                       e.code == STEER_EARG,
                   "an order with edge %d", strange[i]);
    }
}
static void check_counts(void) {
    static const struct {
        const char *name;
        int L, l, H, K, nodes, edges, kind[5], from[3];
    } known[] = {
        {"Gemma 2 2B", 26, 15, 8, 4, 100, 8790, {4048, 2024, 2024, 594, 100}, {188, 7656, 946}},
        {"Llama 3.2 3B",
         28,
         12,
         24,
         8,
         401,
         124441,
         {72384, 24128, 24128, 3400, 401},
         {657, 118848, 4936}},
        {"Qwen3 8B", 36, 20, 32, 8, 529, 195865, {127232, 31808, 31808, 4488, 529}, {0, 0, 0}}};
    for (int i = 0; i < 3; i++) {
        steer_graph g = graph_of(known[i].L, known[i].l, known[i].H, known[i].K);
        int kind[5] = {0}, from[3] = {0}, width = g.heads + 2 * g.kv_heads + 1, wrong = 0;
        CHECK_THAT(g.nodes == known[i].nodes && g.edges == known[i].edges &&
                       g.slots == (known[i].L - known[i].l) * width + 1,
                   "%s: %d nodes, %d slots, %d edges", known[i].name, g.nodes, g.slots, g.edges);
        for (int v = 0; v < g.slots; v++)
            for (int u = 0; u < g.nodes; u++) {
                int at = v % width, edge = u < senders(&g, v);
                wrong += edge != is_edge(&g, u, v);
                if (!edge) continue;
                kind[v == g.slots - 1            ? 4
                     : at < g.heads              ? 0
                     : at < g.heads + g.kv_heads ? 1
                     : at < width - 1            ? 2
                                                 : 3]++;
                from[!u ? 0 : 1 + ((u - 1) % (g.heads + 1) == g.heads)]++;
            }
        for (int k = 0; k < 5; k++)
            CHECK_THAT(kind[k] == known[i].kind[k], "%s: %d edges of kind %d", known[i].name,
                       kind[k], k);
        for (int k = 0; k < 3 && known[i].from[0]; k++)
            CHECK_THAT(from[k] == known[i].from[k], "%s: %d edges from %d", known[i].name, from[k],
                       k);
        CHECK_THAT(!wrong, "%s: %d pairs are edges for one and not for the other", known[i].name,
                   wrong);
    }
    for (int i = 0; i < 60; i++) { /* the number of earlier nodes, and who reads what */
        int K = 1 + roll(3), H = K * (1 + roll(3)), L = 1 + roll(5), l = roll(L), edges = 0, A = 1;
        steer_graph g = graph_of(L, l, H, K);
        for (int b = l; b < L; b++, A += H + 1) edges += (H + 2 * K) * A + A + H;
        CHECK_THAT(g.edges == edges + A && g.nodes == A, "L %d, l %d, H %d, K %d: %d edges", L, l,
                   H, K, g.edges);
        for (int v = 0; v < g.slots; v++) {
            int behind[64], n = nodes_behind(&g, v, behind), first = 0,
                            got = readers(&g, v, &first);
            CHECK_THAT(got == n && (!n || first == behind[0]) &&
                           (n < 2 || behind[n - 1] == first + n - 1),
                       "slot %d: %d readers from %d", v, got, first);
        }
        check_numbers(&g);
    }
}
/* Strongest first by repeated search: what every selection begins with. */
static int strongest(const steer_graph *g, const double *score, const unsigned char *taken,
                     const unsigned char *allowed) {
    int best = -1;
    for (int v = 0; v < g->slots; v++)
        for (int u = 0; u < g->nodes; u++) {
            int i = v * g->nodes + u;
            if (!is_edge(g, u, v) || taken[i] || (allowed && !allowed[i])) continue;
            if (best < 0 || fabs(score[i]) > fabs(score[best])) best = i;
        }
    return best;
}
static void check_selection(int L, int H, int K, double density, int round) {
    enum { MOST = 4096 };
    steer_graph g = graph_of(L, 0, H, K);
    int size = g.slots * g.nodes, behind[64], n;
    unsigned char kept[MOST] = {0}, pruned[MOST] = {0}, on_path[MOST] = {0}, rest[MOST] = {0};
    double score[MOST] = {0};
    int order[MOST] = {0};
    steer_error e = {0};
    for (int i = 0; i < size; i++) {
        kept[i] = is_edge(&g, i % g.nodes, i / g.nodes) && random_unit(&dice) < density;
        score[i] = round % 3 ? 2 * random_unit(&dice) - 1 : roll(5) - 2; /* with many ties */
    }
    memcpy(pruned, kept, (size_t)size), memset(on_path, 0, sizeof on_path);
    follow(&g, kept, 0, on_path);
    n = steer_circuit_prune(&g, pruned, &e);
    CHECK_THAT(!memcmp(pruned, on_path, (size_t)size) && n == count_of(on_path, size),
               "%d blocks, %d heads, %d groups: %d edges pruned to %d, %d are on paths", L, H, K,
               count_of(kept, size), n, count_of(on_path, size));
    CHECK_THAT(steer_circuit_prune(&g, pruned, &e) == n, "pruning twice");

    CHECK_THAT(!steer_circuit_order(&g, score, 0, order, &e), "%s", e.text);
    memset(rest, 0, sizeof rest);
    for (int i = 0, at; i < g.edges; i++, rest[at] = 1) { /* falling, ties in the edges' order */
        at = strongest(&g, score, rest, NULL);
        CHECK_THAT(order[i] == at, "edge %d in the order is %d, not %d", i, order[i], at);
        if (order[i] != at) break;
    }
    /* Simple: the least c whose pruned top c has n edges. */
    int want = 1 + roll(g.edges), got = steer_circuit_select(&g, order, want, STEER_SIMPLE, kept, &e), c = want - 1,
        least = 0;
    while (least < want && c++ < g.edges) {
        memset(rest, 0, sizeof rest), memset(on_path, 0, sizeof on_path);
        for (int i = 0; i < c; i++) rest[order[i]] = 1;
        if (L > 1 && c > 60) { /* every path of a dense graph: too many; prune is checked above */
            memcpy(on_path, rest, (size_t)size);
            least = prune(&g, on_path);
        } else follow(&g, rest, 0, on_path), least = count_of(on_path, size);
    }
    CHECK_THAT(got >= want && got == least && got == count_of(kept, size) &&
                   !memcmp(kept, on_path, (size_t)size),
               "simple, %d wanted: %d edges, %d by the definition", want, got, least);
    /* Greedy, both ways. */
    for (int forward = 0; forward < 2; forward++) {
        unsigned char inside[256] = {0};
        want = 1 + roll(g.edges), got = steer_circuit_select(&g, order, want, forward ? STEER_FORWARD : STEER_BACKWARD, kept, &e);
        memset(rest, 0, sizeof rest), inside[0] = (unsigned char)forward;
        for (int k = 0; k < want; k++) {
            memset(on_path, 0, sizeof on_path); /* here: the edges that may be added */
            for (int i = 0; i < size; i++) {
                int u = i % g.nodes, m = nodes_behind(&g, i / g.nodes, behind);
                on_path[i] = forward ? inside[u] : !m;
                for (int j = 0; j < m && !forward; j++) on_path[i] |= inside[behind[j]];
            }
            int at = strongest(&g, score, rest, on_path);
            if (at < 0) break;
            rest[at] = 1;
            int m = nodes_behind(&g, at / g.nodes, behind);
            for (int j = 0; j < m && forward; j++) inside[behind[j]] = 1;
            if (!forward) inside[at % g.nodes] = 1;
        }
        CHECK_THAT(got == want && count_of(kept, size) == want && !memcmp(kept, rest, (size_t)size),
                   "greedy %s: %d edges of %d", forward ? "forward" : "backward", got, want);
    }
    /* A circuit's cuts and its complement's share nothing and leave no edge out. */
    CHECK_THAT(!steer_circuit_cut(&g, kept, 0, pruned, &e) &&
                   !steer_circuit_cut(&g, kept, 1, rest, &e),
               "%s", e.text);
    int wrong = 0;
    for (int i = 0; i < size; i++)
        wrong += is_edge(&g, i % g.nodes, i / g.nodes) ? rest[i] != kept[i] || pruned[i] != !kept[i]
                                                       : pruned[i] || rest[i];
    CHECK_THAT(!wrong, "%d cuts are wrong", wrong);
    /* Random order: a permutation that its seed repeats. */
    int again[MOST], other[MOST];
    CHECK_THAT(!steer_circuit_order(&g, NULL, 42, order, &e) &&
                   !steer_circuit_order(&g, NULL, 42, again, &e) &&
                   !steer_circuit_order(&g, NULL, 5, other, &e),
               "%s", e.text);
    memset(rest, 0, sizeof rest);
    int same = 0, equal = 1;
    for (int i = 0; i < g.edges; i++) {
        equal &= order[i] == again[i], same += order[i] == other[i];
        wrong += rest[order[i]]++ || !is_edge(&g, order[i] % g.nodes, order[i] / g.nodes);
    }
    CHECK_THAT(equal && !wrong && (same < g.edges / 2 || g.edges < 20),
               "random orders: %d wrong, %d in "
               "the same place under another seed",
               wrong, same);
}
static double check_faithful(int kind, int text) {
    enum { SETS = 9 };
    traced w = {0};
    steer_error e = {0};
    if (!open_traced(&w, kind, 12, 4, 7, text)) return INFINITY;
    tracer *t = &w.t;
    int d = w.m->config.d, size = t->graph.slots * t->graph.nodes,
        answers_n = w.x.n - w.x.n_prompt + 1;
    unsigned char *cut = zeros(SETS * (size_t)size, 1), *kept = zeros((size_t)size, 1);
    int *order = zeros((size_t)t->graph.edges, sizeof *order);
    float *final = malloc(sizeof *final * (size_t)d);
    double F[2][SETS], most = 0;
    CHECK_THAT(!steer_circuit_order(&t->graph, NULL, 3, order, &e), "%s", e.text);
    for (int i = 0; i < SETS; i++) { /* plan 0 keeps nothing, plan 1 all, the others a share */
        memset(kept, i == 1, (size_t)size);
        if (i > 1)
            CHECK_THAT(steer_circuit_select(&t->graph, order, t->graph.edges * (i - 1) / 9, STEER_SIMPLE,
                                            kept, &e) > 0,
                       "%s", e.text);
        CHECK_THAT(!steer_circuit_cut(&t->graph, kept, 0, cut + i * size, &e), "%s", e.text);
    }
    CHECK_THAT(count_of(cut, size) == t->graph.edges && !count_of(cut + size, size), "ends");
    changes cuts[SETS];
    steer_plan plans[SETS];
    for (int streams = 7; streams; streams = streams == 7 ? 3 : streams == 3 ? 1 : 0) {
        int used = t->cut_streams;
        t->cut_streams = streams;
        for (int i = 0; i < SETS; i++) {
            cuts[i] = (changes){.layer = 1, .cut = cut + i * size};
            plans[i] = *plan_of(&cuts[i]);
        }
        CHECK_THAT(!steer_faithfulness(t, &w.x, w.v, plans, SETS, F[streams != 7], &e), "%s",
                   e.text);
        t->cut_streams = used;
        CHECK_THAT(streams == 7 || !memcmp(F[0], F[1], sizeof F[0]), "%s: F depends on the batch",
                   family_names[kind]);
    }
    most = fmax(fabs(F[0][0]), fabs(F[0][1] - 1));
    CHECK_THAT(most <= 1e-4 && F[0][1] == 1, "%s: empty %.8g, full %.8g", family_names[kind],
               F[0][0], F[0][1]);
    int alike = 0;
    for (int i = 2; i < SETS; i++) alike += fabs(F[0][i]) < 1e-3 || fabs(F[0][i] - 1) < 1e-3;
    CHECK_THAT(alike < SETS / 2, "%s: %d partial circuits are like the empty or the full one",
               family_names[kind], alike);
    /* And so are the states themselves: no edge cut gives the steered run's bits. */
    CHECK_THAT(!run_ends(t, &w.x, w.v, &e), "%s", e.text);
    changes base = {.layer = 1, .start = t->tape[0].resid};
    for (int i = 0; i < SETS; i++) {
        cuts[i] = (changes){.layer = 1, .add = w.v, .coeff = w.x.coeff, .cut = cut + i * size,
                            .start = t->tape[0].resid};
        plans[i] = *plan_of(&cuts[i]);
    }
    const steer_plan *list[3] = {plan_of(&base), &plans[0], &plans[1]};
    CHECK_THAT(!run_example(t, &w.x, list, 3, NULL, &e), "%s", e.text);
    fit off = {0, 0};
    int differ = 0;
    for (int i = 0; i < answers_n; i++)
        for (int k = 0; k < 3; k++) {
            final_norm(t->c, k * w.x.n + w.x.n_prompt - 1 + i, final);
            const float *expected = row_at(t->final[k == 2], i, d);
            if (k != 1) differ += !!memcmp(final, expected, sizeof *final * (size_t)d);
            for (int j = 0; j < d; j++) hold(&off, (double) final[j], (double)expected[j]);
        }
    CHECK_THAT(!differ, "%s: uncut rows have other bits at %d positions", family_names[kind],
               differ);
    CHECK_THAT(misfit(&off) <= 1e-4, "%s: the empty circuit's states: %.3g", family_names[kind],
               misfit(&off));
    /* Edges cut before a position only: before it the empty circuit's bits, behind it others. */
    int to = w.x.n_prompt + 1;
    steer_edit early[3];
    memcpy(early, plans[0].edits, sizeof early);
    for (int i = 0; i < 3; i++) early[i].to = early[i].kind == STEER_CUT ? to : 0;
    const steer_plan until = {early, 3}, *ends[3] = {&base.plan, &plans[0], &until};
    CHECK_THAT(!run_example(t, &w.x, ends, 3, NULL, &e), "%s", e.text);
    float *other = malloc(sizeof *other * (size_t)d);
    for (int i = 0; i < w.x.n; i++) {
        final_norm(t->c, w.x.n + i, final), final_norm(t->c, 2 * w.x.n + i, other);
        CHECK_THAT(!memcmp(final, other, sizeof *final * (size_t)d) == (i < to),
                   "%s: cut before %d, position %d", family_names[kind], to, i);
    }
    free(other);
    /* Circuits in between, side by side, against the same in double. */
    fit partial = {0, 0};
    size_t plane = (size_t)(w.x.n * d);
    double *start = doubles(t->tape[0].resid, plane), *states = doubles(NULL, plane),
           *nodes[2] = {doubles(NULL, plane * (size_t)t->graph.nodes),
                        doubles(NULL, plane * (size_t)t->graph.nodes)};
    pushed p = {.m = w.m, .layer = 1, .n = w.x.n, .kind = -1, .start = start, .nodes = nodes[0]};
    const steer_plan *all[SETS - 1] = {&base.plan};
    int64_t hits[1 + 3 * SETS] = {0};
    pushed_value(&p, 0);
    for (size_t i = 0; i < plane; i++) start[i] += (double)w.x.coeff * (double)w.v[i % (size_t)d];
    for (int i = 2; i < SETS; i++) all[i - 1] = &plans[i];
    CHECK_THAT(!run_streams(t, &w.x, all, SETS - 1, hits, NULL, &e), "%s", e.text);
    for (int i = 0; i < 1 + 3 * (SETS - 2); i++) /* one start; a start, an addition, cuts each */
        CHECK_THAT(hits[i] == w.x.n, "edit %d: on %lld rows", i, (long long)hits[i]);
    p.nodes = nodes[1], p.other = nodes[0], p.final = states;
    for (int i = 2; i < SETS; i++) {
        p.cut = cut + i * size;
        pushed_value(&p, 0);
        for (int k = 0; k < answers_n; k++) {
            int at = w.x.n_prompt - 1 + k;
            final_norm(t->c, (i - 1) * w.x.n + at, final);
            for (int j = 0; j < d; j++) hold(&partial, (double) final[j], states[at * d + j]);
        }
    }
    CHECK_THAT(misfit(&partial) <= 1e-5, "%s: circuits in between: relative error %.3g",
               family_names[kind], misfit(&partial));
    free(start), free(states), free(nodes[0]), free(nodes[1]);
    free(cut), free(kept), free(order), free(final), close_traced(&w);
    return fmax(fmax(most, misfit(&off)), misfit(&partial));
}
static void test_circuits(void) {
    static const unsigned char a[] = {1, 1, 1, 0, 0, 1}, b[] = {0, 1, 1, 1, 1, 1}, none[6] = {0};
    double most = 0;
    dice = 20;
    check_counts();
    check_names();
    for (int round = 0; round < 40; round++) {
        check_selection(1, 1 + round % 3, 1, 0.6, round);
        check_selection(1, 4, 2, 0.5, round);
        check_selection(2, 2, 1 + round % 2, round % 5 ? 0.3 : 1, round);
        check_selection(3, 2, 2, 0.12 + 0.03 * (round % 3), round);
    }
    CHECK_THAT(fabs(steer_circuit_overlap(a, b, 6, 0) - 0.75) < 1e-12 && steer_circuit_overlap(a, b, 6, 1) == 0.5 &&
                   steer_circuit_overlap(b, a, 6, 0) == steer_circuit_overlap(a, b, 6, 0) &&
                   steer_circuit_overlap(a, a, 6, 1) == 1 && steer_circuit_overlap(a, a, 6, 0) == 1 &&
                   steer_circuit_overlap(a, none, 6, 0) == 0 && steer_circuit_overlap(none, none, 6, 1) == 0,
               "overlaps");
    for (int kind = 0; kind < FAMILIES; kind++)
        for (int text = 0; text < 2; text++) most = fmax(most, check_faithful(kind, text));
    printf("  empty circuits are the base run, full ones the steered, others as in double: largest "
           "error %.2g\n",
           most);
}

/* ---------------------------------------------------------------- steering value vectors */

/* Method 6.6: z of a run under the vector, and of one from whose values its image is removed,
 * differ in block l by what a (sum_u A[t,u] c_u) svv_h(s) says, whatever the text. */
static double check_removal(int kind, int from) {
    enum { N = 10, LAYER = 1 };
    traced w = {0};
    steer_error e = {0};
    if (!open_traced(&w, kind, N, 4, 1, 1)) return INFINITY;
    const steer_config *c = &w.m->config;
    const block *b = &w.m->blocks[LAYER];
    int d = c->d, H = c->heads, K = c->kv_heads, hd = c->head_dim, depth = c->layers - LAYER;
    changes plain = {.add = w.v, .coeff = w.x.coeff, .layer = LAYER, .from = from}, removed = plain;
    removed.remove = STEER_SVV;
    const steer_plan *plans[2] = {plan_of(&plain), plan_of(&removed)};
    for (int k = 0; k < 2; k++)
        CHECK_THAT(!run_streams(&w.t, &w.x, &plans[k], 1, k ? removed.hits : plain.hits,
                                &w.t.tape[k], &e),
                   "%s", e.text);
    CHECK_THAT(hits_of(&removed, STEER_REMOVE) == (N - from) * depth, "%lld rows",
               hits_of(&removed, STEER_REMOVE));
    double q[N * MOST_Q], key[N * MOST_Q], r[N], p[N], x[MOST_D];
    for (int t = 0; t < N; t++) {
        const float *of = row_at(w.t.tape[0].resid, t, d);
        for (int i = 0; i < d; i++) x[i] = (double)of[i];
        r[t] = t < from ? 0 : inverse_rms64(x, (double)c->norm_eps, d);
        for (int i = 0; i < H * hd; i++)
            q[t * H * hd + i] = (double)row_at(w.t.tape[0].q, t, H * hd)[i];
        for (int i = 0; i < K * hd; i++)
            key[t * K * hd + i] = (double)row_at(w.t.tape[0].k, t, K * hd)[i];
        CHECK_THAT(!memcmp(row_at(w.t.tape[0].q, t, H * hd),
                           row_at(w.t.tape[1].q, t, H * hd),
                           sizeof(float) * (size_t)(H * hd)) &&
                       !memcmp(row_at(w.t.tape[0].k, t, K * hd),
                               row_at(w.t.tape[1].k, t, K * hd),
                               sizeof(float) * (size_t)(K * hd)),
                   "removal touches queries or keys at %d", t);
    }
    fit off = {0, 0};
    float svv[MOST_D];
    for (int h = 0; h < H; h++) {
        CHECK_THAT(!steer_value_vector(w.m, w.v, LAYER, h, svv, &e), "%s", e.text);
        for (int t = 0; t < N; t++) {
            double strength = 0;
            pattern64(c, LAYER, h, t, q, key, p);
            for (int u = 0; u <= t; u++) strength += (double)w.x.coeff * p[u] * r[u];
            for (int j = 0; j < d; j++) { /* through W_O and, before its scale, the post-norm */
                double shift = 0;
                for (int i = 0; i < hd; i++)
                    shift += weight_value(&b->o, j, h * hd + i) *
                             ((double)row_at(w.t.tape[0].z, t, H * hd)[h * hd + i] -
                              (double)row_at(w.t.tape[1].z, t, H * hd)[h * hd + i]);
                if (c->post_norms) shift *= (double)c->norm_offset + (double)b->post_attn_norm[j];
                hold(&off, shift, strength * (double)svv[j]);
            }
        }
    }
    CHECK_THAT(misfit(&off) <= 1e-5 && off.largest > 0.01,
               "%s from %d: relative error %.3g of %.3g", family_names[kind], from, misfit(&off),
               off.largest);
    close_traced(&w);
    return misfit(&off);
}
static void test_value_vectors(void) {
    enum { TOP = 5 };
    double most = 0;
    steer_error e = {0};
    for (int kind = 0; kind < FAMILIES; kind++) {
        for (int from = 0; from < 6; from += 3) most = fmax(most, check_removal(kind, from));
        /* The lens: the n largest of W_U RN(v), falling, however long v is; its sign counts. */
        const steer_model *m = family(kind);
        int d = m->config.d, vocab = m->config.vocab, ids[2][TOP];
        float *v = floats(101, kind, (size_t)d, 1), *far = floats(101, kind, (size_t)d, 1e-4),
              logits[2][TOP];
        for (int sign = 0; sign < 2; sign++) {
            double x[MOST_D], y[MOST_D], z[64];
            for (int i = 0; i < d; i++) v[i] *= -1, far[i] *= -1, x[i] = (double)v[i];
            double r = inverse_rms64(x, 0, d);
            for (int i = 0; i < d; i++)
                y[i] = x[i] * r * ((double)m->config.norm_offset + (double)m->final_norm[i]);
            product64(z, &m->unembed, 0, vocab, y, NULL);
            CHECK_THAT(!steer_logit_lens(m, v, TOP, ids[0], logits[0], &e), "%s", e.text);
            CHECK_THAT(!steer_logit_lens(m, far, TOP, ids[1], logits[1], &e), "%s", e.text);
            for (int i = 0; i < TOP; i++) {
                int above = 0;
                for (int j = 0; j < vocab; j++) above += z[j] > z[ids[0][i]];
                CHECK_THAT(above == i && ids[0][i] == ids[1][i], "lens: token %d is number %d",
                           ids[0][i], above);
                CHECK_THAT(fabs((double)logits[0][i] - z[ids[0][i]]) < 1e-5 &&
                               fabs((double)logits[1][i] - z[ids[0][i]]) < 1e-5,
                           "lens: %g and %g, not %g", (double)logits[0][i], (double)logits[1][i],
                           z[ids[0][i]]);
            }
        }
        free(v), free(far);
    }
    /* Heads, blocks and tokens that are not there. */
    const steer_model *m = family(0);
    const steer_config *c = &m->config;
    float v[MOST_D] = {1}, to[MOST_D], logits[2];
    const int none[][2] = {{-1, 0}, {c->layers, 0}, {0, -1}, {0, c->heads}};
    int ids[2];
    for (int i = 0; i < 4; i++)
        CHECK_THAT(steer_value_vector(m, v, none[i][0], none[i][1], to, &e) == STEER_EARG &&
                       strstr(e.text, "no head"),
                   "head %d.%d: %s", none[i][0], none[i][1], e.text);
    CHECK_THAT(steer_logit_lens(m, v, 0, ids, logits, &e) == STEER_EARG &&
                   steer_logit_lens(m, v, c->vocab + 1, ids, logits, &e) == STEER_EARG,
               "no token, or too many");
    printf("  removing the image: relative error %.2g\n", most);
}

/* ---------------------------------------------------------------- sparse vectors */

/* How many stay, or -1: then a check has failed. */
static int sparsely(const float *v, const double *effect, int d, double tau, int rule, uint64_t seed,
                    int renormalise, float *to) {
    steer_error e = {0};
    int kept = steer_sparsify(v, effect, d, tau, (steer_sparsity)rule, seed, renormalise, to, &e);
    CHECK_THAT(kept >= 0, "%s", e.text);
    return kept;
}
static void check_rules(int d, int round) {
    enum { MOST = 300 };
    static const double levels[] = {0, 0.1, 0.5, 1, 1.5, 2.5, 1e9};
    float v[MOST], to[MOST], again[MOST];
    double effect[MOST], v_norm = 0, e_norm = 0;
    for (int i = 0; i < d; i++) {
        v[i] = (float)(2 * random_unit(&dice) - 1), effect[i] = random_normal(&dice);
        if (round % 2 && i % 7 == 3) v[i] = 0;
        if (round % 2 && i % 7 == 5) effect[i] = 0;
        v_norm += (double)v[i] * (double)v[i], e_norm += effect[i] * effect[i];
    }
    v_norm = sqrt(v_norm), e_norm = sqrt(e_norm);
    for (int level = 0; level < 7; level++) {
        double tau = levels[level];
        unsigned char gone[MOST];
        int expected = 0;
        for (int i = 0; i < d; i++) /* as products, not as a quotient */
            expected += gone[i] = fabs(effect[i]) * v_norm < tau * fabs((double)v[i]) * e_norm;
        for (int rule = 0; rule < 4; rule++)
            for (int renormalise = 0; renormalise < 2; renormalise++) {
                int kept = sparsely(v, effect, d, tau, rule, 42, renormalise, to),
                    zeroed = 0;
                double left = 0, dropped_most = -1, kept_least = INFINITY;
                CHECK_THAT(kept == d - expected, "rule %d, tau %g: %d stay, not %d", rule, tau,
                           kept, d - expected);
                double scale = 0;
                for (int i = 0; i < d; i++) {
                    double by = rule == STEER_BY_EFFECT ? fabs(effect[i]) : fabs((double)v[i]);
                    left += (double)to[i] * (double)to[i];
                    if (v[i] == 0) continue; /* is 0 in any case */
                    zeroed += to[i] == 0;
                    if (to[i] != 0 && scale == 0) scale = (double)to[i] / (double)v[i];
                    if (to[i] == 0) dropped_most = fmax(dropped_most, by);
                    else kept_least = fmin(kept_least, by);
                    CHECK_THAT(rule != STEER_BY_GRADIENT || gone[i] == (to[i] == 0),
                               "tau %g: dimension %d", tau, i);
                    CHECK_THAT(to[i] == 0 || fabs((double)to[i] - scale * (double)v[i]) <
                                                 1e-6 * fabs((double)to[i]),
                               "rule %d: %g became %g", rule, (double)v[i], (double)to[i]);
                }
                if (!(round % 2))
                    CHECK_THAT(zeroed == expected, "rule %d: %d zeros of %d", rule, zeroed,
                               expected);
                if (rule == STEER_BY_EFFECT || rule == STEER_BY_MAGNITUDE)
                    CHECK_THAT(dropped_most <= kept_least, "rule %d drops %g, keeps %g", rule,
                               dropped_most, kept_least);
                if (zeroed < count_of(gone, d) || left > 0)
                    CHECK_THAT(renormalise ? fabs(sqrt(left) / v_norm - 1) < 1e-6
                                           : scale == 1 || left == 0,
                               "rule %d, tau %g: norm %g of %g", rule, tau, sqrt(left), v_norm);
                CHECK_THAT(isfinite(left) && (tau > 0 || kept == d), "tau 0 keeps all: %d", kept);
                if (rule != STEER_BY_CHANCE || tau > 1 || tau < 0.5) continue;
                sparsely(v, effect, d, tau, rule, 42, renormalise, again);
                CHECK_THAT(!memcmp(to, again, sizeof *to * (size_t)d), "a seed repeats itself");
                sparsely(v, effect, d, tau, rule, 43, renormalise, again);
                CHECK_THAT(memcmp(to, again, sizeof *to * (size_t)d) || d < 20,
                           "another seed drops the same");
            }
    }
}
/* P(overlap >= k) of all n2 of d with the first n1, by counting every subset. */
static double counted_overlap(int d, int n1, int n2, int k) {
    int all = 0, hits = 0;
    for (int set = 0; set < 1 << d; set++) {
        if (__builtin_popcount((unsigned)set) != n2) continue;
        all++, hits += __builtin_popcount((unsigned)set & ((1u << n1) - 1)) >= k;
    }
    return (double)hits / all;
}
/* agreement_table on three vectors: two alike, a third that keeps other dimensions. */
static void check_agreement(void) {
    enum { D = 200 };
    steer_model m = {.config = {.d = D, .layers = 2, .heads = 1, .kv_heads = 1}};
    report out = {0};
    steer_error e = {0};
    experiment s = {.m = &m, .out = &out, .e = &e, .methods = 3};
    tracer graph_only = {.m = &m, .graph = steer_graph_of(&m, 1)};
    s.t = &graph_only;
    for (int k = 0; k < 3; k++) {
        s.vectors[k].v = floats(110, k, D, 1),
        s.vectors[k].scores = zeros(scores_width(s.t), sizeof(double));
        double *by = dvector_of(s.t, s.vectors[k].scores);
        for (int i = 0; i < D;
             i++) /* the first half matters to two of them, the second to the third */
            by[i] = (double)s.vectors[k].v[i] * ((i < D / 2) == (k < 2) ? 2 : 0.01);
    }
    int tested = agreement_table(&s) ? -1 : s.findings.tested, large = 0, rows = 0;
    CHECK_THAT(n_entries(&out) == 1, "%zu entries", n_entries(&out));
    for (size_t i = 0; i < n_entries(&out); i++) {
        const entry *t = AT(out.entries, entry, i);
        for (int r = 0; r < t->n_rows; r++) {
            double tau = value_of(&out, t, r, "tau"), iou = value_of(&out, t, r, "IoU"),
                   both = value_of(&out, t, r, "both"), p10 = value_of(&out, t, r, "log10 p");
            int enough = fmin(value_of(&out, t, r, "kept A"), value_of(&out, t, r, "kept B")) >= 20;
            rows++, large += enough;
            CHECK_THAT(isnan(p10) == !enough, "a probability of sets that are too small");
            if (tau < 0.4 || tau > 1.2) continue; /* half of the dimensions stay */
            CHECK_THAT(value_of(&out, t, r, "kept A") == D / 2 &&
                           value_of(&out, t, r, "kept B") == D / 2,
                       "tau %g keeps %g", tau, value_of(&out, t, r, "kept A"));
            if (r < TAUS)
                CHECK_THAT(both == D / 2 && iou == 1 && p10 < -50, "alike: %g shared, p 10^%g",
                           both, p10);
            else
                CHECK_THAT(both == 0 && iou == 0 && p10 > -0.01, "apart: %g shared, p 10^%g", both,
                           p10);
            CHECK_THAT(fabs(value_of(&out, t, r, "chance") - 1 / 3.0) < 1e-9, "chance");
        }
    }
    CHECK_THAT(rows == 3 * TAUS && tested == large && large > 0 && large < rows,
               "%d rows, %d of them large enough, %d tested", rows, large, tested);
    for (int k = 0; k < 3; k++) free(s.vectors[k].v), free(s.vectors[k].scores);
    s.t = NULL;
    clear_experiment(&s), free_report(&out);
}
static void test_sparse(void) {
    double most = 0;
    dice = 21;
    for (int round = 0; round < 12; round++) check_rules(round < 2 ? 3 : 20 + 23 * round, round);
    /* Exactly at the threshold a dimension stays, and a zero is never below it. */
    float v[8] = {1, -2, 4, 0.5f, -8, 0, 16, 0}, to[8];
    double effect[8] = {3, 6, -12, 1.5, 24, 0, 48, 5};
    effect[7] = 0;
    CHECK_THAT(steer_sparsify(v, effect, 8, 1, (steer_sparsity)4, 1, 1, to, NULL) == -1 &&
                   steer_sparsify(v, effect, 0, 1, STEER_BY_EFFECT, 1, 1, to, NULL) == -1,
               "an unknown rule, no dimensions");
    CHECK_THAT(sparsely(v, effect, 8, 1, STEER_BY_GRADIENT, 1, 1, to) == 8 &&
                   !memcmp(v, to, sizeof v),
               "all are exactly at tau 1");
    CHECK_THAT(sparsely(v, effect, 8, 1.0000001, STEER_BY_GRADIENT, 1, 1, to) == 2 &&
                   to[4] == 0 && to[0] == 0,
               "all but the zeros are below tau 1.0000001");
    for (int i = 0; i < 8; i++)
        CHECK_THAT(to[i] == 0, "no dimension is left, and nothing is divided by 0: %g",
                   (double)to[i]);
    effect[1] = 5.99; /* now one is below; by magnitude the first of the smallest goes, a zero */
    CHECK_THAT(sparsely(v, effect, 8, 0.9999, STEER_BY_GRADIENT, 1, 0, to) == 7 && to[1] == 0 &&
                   to[0] == 1,
               "one is below");
    CHECK_THAT(sparsely(v, effect, 8, 0.9999, STEER_BY_MAGNITUDE, 1, 0, to) == 7 &&
                   !memcmp(v, to, sizeof v),
               "the smallest magnitude is a zero");
    float flat[6] = {1, 1, 1, 1, 1, 1}, left[6];
    double tied[6] = {1, 1, 1, 0.1, 0.1, 0.1};
    CHECK_THAT(sparsely(flat, tied, 6, 0.5, STEER_BY_MAGNITUDE, 1, 0, left) == 3 &&
                   left[0] == 0 && left[2] == 0 && left[3] == 1,
               "of equals the first go");

    for (int d = 1; d <= 11; d++)
        for (int n1 = 0; n1 <= d; n1++)
            for (int n2 = 0; n2 <= n1; n2++)
                for (int k = 0; k <= n2 + 1; k++) {
                    double got = chance_of_overlap(d, n1, n2, k),
                           off = fabs(got - counted_overlap(d, n1, n2, k));
                    most = fmax(most, isnan(off) ? INFINITY : off);
                    CHECK_THAT(off < 1e-12 && fabs(got - chance_of_overlap(d, n2, n1, k)) < 1e-12,
                               "%d of %d and %d share %d: %g", n1, d, n2, k, got);
                }
    for (int n1 = 1; n1 < 2304; n1 += 383) { /* as large as in the paper */
        double all = chance_of_overlap(2304, n1, 700, 0), below = 0;
        int mean = n1 * 700 / 2304;
        below = chance_of_overlap(2304, n1, 700, mean + 150);
        CHECK_THAT(fabs(all - 1) < 1e-9 && below < 1e-9 &&
                       fabs(chance_of_overlap(2304, n1, 700, mean) - 0.5) < 0.5 &&
                       fabs(chance_of_overlap(2304, 700, n1, mean) -
                            chance_of_overlap(2304, n1, 700, mean)) < 1e-9,
                   "%d of 2304 and 700: %g, %g", n1, all, below);
    }
    check_agreement();
    printf("  chance of an overlap: error %.2g\n", most);
}

/* ---------------------------------------------------------------- training */

/* The epoch chosen has the least loss (PO), or the least sum of the ranks of loss and match. */
static void check_chosen(const steer_epoch *log_of, int epochs, int chosen, int po, const char *what) {
    double best = INFINITY, value[16];
    for (int i = 0; i < epochs; i++) {
        value[i] = po ? log_of[i].loss : 0;
        for (int j = 0; j < epochs && !po; j++)
            value[i] += (log_of[j].loss < log_of[i].loss) + (log_of[j].match > log_of[i].match);
        best = fmin(best, value[i]);
    }
    CHECK_THAT(chosen >= 0 && chosen < epochs && value[chosen] == best,
               "%s: epoch %d was chosen, value %g, not %g", what, chosen,
               chosen < 0 ? NAN : value[chosen], best);
}
/* Pairs whose wanted answers use the lower tokens for one sign, the upper for the other. */
static int make_toy(tracer *t, steer_pair *pairs, int n, int prompt, int answer) {
    int d = t->m->config.d, half = t->m->config.vocab / 2;
    steer_error e = {0};
    for (int i = 0; i < n; i++) {
        steer_pair *p = &pairs[i];
        *p = (steer_pair){.n_prompt = prompt + i % 2, .sign = i % 2 ? 1 : -1};
        int context[16] = {0};
        random_tokens(context, p->n_prompt, t->m->config.vocab);
        for (int k = 0; k < 2; k++) {
            p->n[k] = p->n_prompt + answer + k;
            int *tokens = malloc(sizeof(int) * (size_t)p->n[k]);
            p->tokens[k] = tokens;
            p->start[k] = malloc(sizeof(float) * (size_t)(p->n[k] * d));
            for (int j = 0; j < p->n[k]; j++)
                tokens[j] =
                    j < p->n_prompt ? context[j] : roll(half) % 6 + (i % 2 == k ? half : 0);
        }
        if (steer_pair_prepare(t, p, &(steer_training){0}, &e)) return 0;
    }
    return 1;
}
static double mean_loss(tracer *t, const steer_pair *pairs, int n, const steer_training *how,
                        const float *v) {
    double sum = 0, one = 0, match;
    steer_error e = {0};
    for (int i = 0; i < n; i++) {
        CHECK_THAT(!pair_loss(t, &pairs[i], how, v, 1, &one, &match, NULL, &e), "%s", e.text);
        sum += one / n;
    }
    return sum;
}
static void test_training(void) {
    enum { PAIRS = 6, EPOCHS = 5 };
    for (int kind = 0; kind < FAMILIES; kind += 2)
        for (int po = 0; po < 2; po++) {
            steer_error e = {0};
            experiment s = {.m = family(kind), .e = &e};
            tracer *t = s.t = steer_tracer_new(s.m, 1, 16, 12, 1, &e);
            int d = s.m->config.d, best = 0;
            CHECK_THAT(t, "%s", e.text);
            steer_pair pairs[PAIRS];
            dice = 22;
            CHECK_THAT(make_toy(t, pairs, PAIRS, 4, 6), "pairs");
            steer_training how = standard_training, still;
            how.objective = po ? STEER_PO : STEER_NTP;
            how.epochs = EPOCHS, how.batch = 4, how.rate = 0.05, how.seed = 5;
            still = how, still.rate = 1e-30, still.epochs = 1; /* no step that a float could take */
            steer_epoch log_of[EPOCHS], again[EPOCHS];
            double norm = kind == 2 ? 6 : 3;
            float *v[4];
            for (int i = 0; i < 4; i++) { /* untrained; trained; the same again; another seed */
                v[i] = malloc(sizeof(float) * (size_t)d);
                how.seed = i == 3 ? 42 : 5;
                int chosen;
                CHECK_THAT(!steer_train(t, pairs, PAIRS, pairs, PAIRS, i ? &how : &still, norm, v[i],
                                        i == 1 ? log_of : again, &chosen, &e),
                           "%s", e.text);
                CHECK_THAT(chosen >= 0 && chosen < EPOCHS, "epoch %d", chosen);
                CHECK_THAT(fabs(norm_of(v[i], d) / norm - 1) < 1e-6, "norm %g, not %g",
                           norm_of(v[i], d), norm);
                if (i == 1) best = chosen;
                if (i == 2)
                    CHECK_THAT(chosen == best && !memcmp(log_of, again, sizeof again),
                               "another epoch");
            }
            CHECK_THAT(!memcmp(v[1], v[2], sizeof(float) * (size_t)d),
                       "the same seed gives another vector");
            CHECK_THAT(memcmp(v[1], v[3], sizeof(float) * (size_t)d),
                       "another seed gives the same vector");
            double before = mean_loss(t, pairs, PAIRS, &how, v[0]),
                   after = mean_loss(t, pairs, PAIRS, &how, v[1]);
            CHECK_THAT(after < (po ? 0.8 : 0.97) * before, "%s, %s: loss %g, untrained %g",
                       family_names[kind], po ? "PO" : "NTP", after, before);
            CHECK_THAT(fabs(after / log_of[best].loss - 1) < 1e-5, "the loss on file is %g, not %g",
                       log_of[best].loss, after);
            check_chosen(log_of, EPOCHS, best, po, "the training pairs");
            /* On pairs half of which have the other sign, the last epoch need not be the best. */
            steer_pair other[PAIRS];
            for (int i = 0; i < PAIRS; i++)
                other[i] = pairs[i], other[i].sign *= i < PAIRS / 2 ? -1 : 1;
            for (how.seed = 1; how.seed < 5; how.seed++) {
                int chosen = -1;
                CHECK_THAT(!steer_train(t, pairs, PAIRS, other, PAIRS, &how, norm, v[3], again,
                                        &chosen, &e),
                           "%s", e.text);
                check_chosen(again, EPOCHS, chosen, po, "the opposite pairs");
            }
            /* What can't be trained on. */
            steer_pair bare = pairs[0], none = {0};
            bare.start[0] = NULL;
            steer_training backwards = how, unknown = how;
            backwards.epochs = -1, unknown.objective = (steer_objective)2;
            const steer_training *hows[] = {&how, &how, &how, &how, &backwards, &unknown, &how};
            const steer_pair *sets[] = {pairs, &bare, &none, pairs, pairs, pairs, pairs};
            int sizes[] = {0, 1, 1, PAIRS, PAIRS, PAIRS, PAIRS};
            double norms[] = {norm, norm, norm, 0, norm, norm, NAN};
            for (int i = 0; i < 7; i++)
                CHECK_THAT(steer_train(t, sets[i], sizes[i], pairs, PAIRS, hows[i], norms[i], v[3], again,
                                       &best, &e) == STEER_EARG,
                           "training %d: %s", i, e.text);
            CHECK_THAT(steer_pair_prepare(t, &bare, &how, &e) == STEER_EARG, "no memory to prepare");
            bare = pairs[0], bare.n[0] = bare.n_prompt;
            CHECK_THAT(steer_pair_prepare(t, &bare, &how, &e) == STEER_EARG, "no response");
            printf("  %s, %s: loss %.3f of the untrained vector, %.3f trained\n",
                   family_names[kind], po ? "PO" : "NTP", before, after);
            for (int i = 0; i < 4; i++) free(v[i]);
            for (int i = 0; i < 2 * PAIRS; i++)
                free((void *)(uintptr_t)pairs[i / 2].tokens[i % 2]), free(pairs[i / 2].start[i % 2]);
            clear_experiment(&s);
        }
}

/* ---------------------------------------------------------------- what must be refused */

static void test_patch_errors(void) {
    traced w = {0};
    steer_error e = {0};
    if (!open_traced(&w, 0, 10, 4, 2, 1)) return;
    tracer *t = &w.t;
    int size = t->graph.slots * t->graph.nodes;
    unsigned char *cut = zeros((size_t)size, 1), *kept = zeros((size_t)size, 1);
    CHECK_THAT(!steer_circuit_cut(&t->graph, kept, 0, cut, &e), "%s", e.text);
    changes right = {.add = w.v, .coeff = 1, .layer = 1, .cut = cut};
    const struct {
        const char *what, *word;
        int twin, layer;
        unsigned freeze, remove;
        int ablate;
    } wrong[] = {{"a cut without a twin", "twin", -1, 1, 0, 0, 0},
                 {"a cut and frozen patterns", "edits something else", 0, 1, STEER_QK, 0, 0},
                 {"a cut and frozen values", "edits something else", 0, 1, STEER_V, 0, 0},
                 {"a cut and a removal", "edits something else", 0, 1, 0, STEER_SVV, 0},
                 {"a cut and an ablation", "edits something else", 0, 1, 0, 0, 1},
                 {"a cut in another block", "not made for", 0, 2, 0, 0, 0},
                 {"a cut in block 0", "not made for", 0, 0, 0, 0, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        changes p = right;
        p.layer = wrong[i].layer, p.freeze = wrong[i].freeze, p.remove = wrong[i].remove;
        if (wrong[i].ablate) p.add = NULL, p.ablate = w.v;
        memset(&e, 0, sizeof e);
        CHECK_THAT(!steer_begin(t->c, 0, NULL, -1, NULL, &e), "%s", e.text);
        steer_status s = steer_begin(t->c, 1, plan_of(&p), wrong[i].twin, NULL, &e);
        CHECK_THAT(s == STEER_EARG && e.code == s && strstr(e.text, wrong[i].word),
                   "%s: status %d, \"%s\"", wrong[i].what, (int)s, e.text);
    }
    CHECK_THAT(!steer_begin(t->c, 1, plan_of(&right), 0, NULL, &e), "a right cut: %s", e.text);
    changes alone = {.layer = 1, .cut = cut}; /* the twin may be the steered one */
    CHECK_THAT(!steer_begin(t->c, 1, plan_of(&alone), 0, NULL, &e), "a cut without a vector: %s", e.text);
    steer_limits l = {.streams = 2, .positions = 16, .rows = 32, .cut_layer = 1};
    steer_context *none = steer_context_new(w.m, &l, &e);
    l.cut_rows = 10;
    steer_context *some = steer_context_new(w.m, &l, &e);
    CHECK_THAT(none && steer_begin(none, 1, plan_of(&right), 0, NULL, &e) == STEER_EARG &&
                   strstr(e.text, "not made for"),
               "a context without cut rows: %s", e.text);
    /* Eleven rows with cuts where ten fit; ten are no trouble; a twin without its rows is. */
    for (int n = 10; n <= 11 && some; n++) {
        steer_row rows[22];
        for (int i = 0; i < 2 * n; i++) rows[i] = (steer_row){i / n, i % n, 1 + i % n, 0, 0};
        CHECK_THAT(!steer_begin(some, 0, NULL, -1, NULL, &e) && !steer_begin(some, 1, plan_of(&right), 0, NULL, &e),
                   "%s", e.text);
        steer_status s = steer_run(some, rows, 2 * n, NULL, &e);
        CHECK_THAT(n == 10 ? !s : s == STEER_EARG && strstr(e.text, "more than 10 rows"),
                   "%d rows: %s", n, e.text);
        CHECK_THAT(!steer_begin(some, 0, NULL, -1, NULL, &e) && !steer_begin(some, 1, plan_of(&right), 0, NULL, &e),
                   "%s", e.text);
        CHECK_THAT(steer_run(some, rows + n, n, NULL, &e) == STEER_EARG && strstr(e.text, "twin"),
                   "%s", e.text);
    }
    l.cut_layer = w.m->config.layers;
    CHECK_THAT(!steer_context_new(w.m, &l, &e) && !steer_context_bytes(w.m, &l),
               "a graph above the last block");
    l.cut_layer = 1, l.cut_rows = -1;
    CHECK_THAT(!steer_context_new(w.m, &l, &e) && !steer_context_bytes(w.m, &l),
               "less than no rows");
    steer_context_free(none), steer_context_free(some);

    /* Examples that do not fit, each through everything that takes one. */
    double F[1], *scores = zeros(scores_width(t), sizeof *scores), node[64],
                 *edge = zeros((size_t)size, sizeof *edge);
    int tokens[14] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    for (int i = 0; i < 4; i++) { /* too long; no prompt; too long an answer; less than no prompt */
        static const int sizes[][2] = {{14, 9}, {6, 0}, {10, 3}, {3, -2}};
        changes p = {.layer = 1, .cut = cut};
        example x = {tokens, sizes[i][0], sizes[i][1], 1, 1};
        for (int k = 0; k < 3; k++) {
            memset(&e, 0, sizeof e);
            steer_status s = k == 0   ? attribute(t, &x, w.v, STEER_LOGIT, 1, scores, &e)
                             : k == 1 ? steer_patch_exactly(t, &x, w.v, node, edge, &e)
                                      : steer_faithfulness(t, &x, w.v, plan_of(&p), 1, F, &e);
            CHECK_THAT(s == STEER_EARG && e.code == s && strstr(e.text, "does not fit"),
                       "example %d: status %d, "
                       "\"%s\"",
                       i, (int)s, e.text);
        }
    }
    tokens[5] = w.m->config.vocab;
    example foreign = {tokens, 10, 4, 1, 1};
    CHECK_THAT(attribute(t, &foreign, w.v, STEER_LOGIT, 1, scores, &e) == STEER_EARG,
               "a token outside");
    float *zero = zeros((size_t)w.m->config.d, sizeof *zero);
    CHECK_THAT(attribute(t, &w.x, zero, STEER_LOGIT, 1, scores, &e) == STEER_EARG &&
                   strstr(e.text, "zero"),
               "a vector that changes nothing: %s", e.text);

    /* Where both runs predict the same, there is nothing to patch, and it is said so. */
    example same = w.x;
    same.coeff = 1e-6f;
    for (size_t i = 0; i < scores_width(t); i++) scores[i] = 7;
    CHECK_THAT(!attribute(t, &same, w.v, STEER_LOGIT, 2, scores, &e), "%s", e.text);
    double sum = 0;
    for (size_t i = 0; i < scores_width(t); i++) sum += fabs(scores[i]);
    CHECK_THAT(scores[SCORE_POSITIONS] == 0 && sum == 0, "%g positions, %g in all", scores[SCORE_POSITIONS], sum);
    changes p = {.layer = 1, .cut = cut};
    CHECK_THAT(!steer_faithfulness(t, &same, w.v, plan_of(&p), 1, F, &e) && isnan(F[0]),
               "F of no effect is %g", F[0]);
    CHECK_THAT(!attribute(t, &same, w.v, STEER_KL, 2, scores, &e) && scores[SCORE_POSITIONS] == 7,
               "the KL metric has all %g positions", scores[SCORE_POSITIONS]);
    t->kl_min = 1e9;
    CHECK_THAT(!attribute(t, &w.x, w.v, STEER_KL, 2, scores, &e) && scores[SCORE_POSITIONS] == 0,
               "a KL of %g", t->kl_min);
    t->kl_min = 0;
    CHECK_THAT(!attribute(t, &w.x, w.v, STEER_LOGIT, 2, scores, &e) && scores[SCORE_POSITIONS] > 0,
               "the vector itself");

    /* What can't be meant is refused: no steps, unknown metrics, an edit that never fires, an
     * example that ends inside its prompt, more positions than the model has. */
    for (int i = 0; i < 4; i++)
        CHECK_THAT(attribute(t, &w.x, w.v, i < 2 ? STEER_LOGIT : i == 2 ? 7 : -1,
                                   i == 0   ? 0
                                   : i == 1 ? -3
                                            : 2, scores, &e) == STEER_EARG,
                   "steps or metric %d", i);
    changes late = {.add = w.v, .coeff = 1, .layer = 1, .from = 1000};
    CHECK_THAT(steer_faithfulness(t, &w.x, w.v, plan_of(&late), 1, F, &e) == STEER_ENOHIT,
               "a vector that acts after the end");
    example inside = w.x;
    inside.n = inside.n_prompt - 1;
    CHECK_THAT(attribute(t, &inside, w.v, STEER_LOGIT, 1, scores, &e) == STEER_EARG,
               "an example that ends inside its prompt");
    memset(&e, 0, sizeof e);
    CHECK_THAT(!steer_tracer_new(w.m, 1, w.m->config.max_seq + 88, 4, 1, &e) &&
                   e.code == STEER_EARG && strstr(e.text, "positions"),
               "more positions than the model has: %s", e.text);
    free(cut), free(kept), free(scores), free(edge), free(zero), close_traced(&w);
}

/* ---------------------------------------------------------------- the report */

static void test_report(void) {
    static const char
        hostile[] = "<script>alert(\"x\")</script> & </p> 'q' \\ \" \xC3\xA9 \xE2\x82\xAC",
        broken[] =
            "\xFF\xC3( \xED\xA0\x80 \xC0\xAF \xF4\x90\x80\x80 \x1B[31m \x01 \x7F \xC2\x9B end",
        lines[] = "two\nlines\tand a tab: \\n \"";
    steer_model m = {0};
    report r = {.f = tmpfile()};
    char *json, *html, *text = NULL, decoded[256];
    static const char page[] = "<p>\n<script>\nlet report = /*REPORT*/null/*END*/;\n</script>\n";
    size_t n = 0;
    CHECK_THAT(is_json("[{\"a\": [1, -2.5e+06, null]}, \"\\u00e9\\n\"]") && !is_json("[1,]") &&
                   !is_json("[nan]") && !is_json("{\"a\" 1}") && !is_json("[\"\n\"]") &&
                   !is_json("[01]") && !is_json("[") && !is_json("[\"\\x\"]") &&
                   !is_json("[\"\xFF\"]") && !is_json("[] []") && !is_json("[1 2]"),
               "the checker of JSON");
    report empty = {0};
    json = report_text(&empty, NULL, &n);
    CHECK_THAT(json && !strcmp(json, "[]\n"), "%s", json);
    free(json);

    snprintf(m.config.name, sizeof m.config.name, "<b>\"m\" & \xFF</b>");
    m.config.fingerprint = 0x123456789ABCDEFull;
    open_report(&r, &m);
    say(&r, "%s", hostile), say(&r, "%s", broken), say(&r, "%s", lines), say(&r, "%s", "");
    finding(&r, "%s: holds in part; %s", hostile, broken);
    finding(&r, "a claim: fails; 100%% of <it>"), finding(&r, "no verdict & no colon");
    open_table(&r, "words", hostile,
               (const column[]){{"what <is>", WORDS}, {"n", 0}, {"x", 2}, {"text & such", WORDS},
                                {"left", 1}, {0}});
    add_row(&r, hostile, (const double[]){3, NAN}, 2, (const char *[]){broken}, 1);
    add_row(&r, broken, (const double[]){-0.0, INFINITY}, 2, (const char *[]){hostile}, 1);
    add_row(&r, "", (const double[]){1e300, -1e-300, -INFINITY}, 3, (const char *[]){lines}, 1);
    json = report_text(&r, NULL, &n);
    html = report_text(&r, page, &(size_t){0});
    CHECK_THAT(json && html && strlen(json) == n && is_json(json), "not JSON: %s", json);
    if (json && html) {
        CHECK_THAT(occurrences(json, "null") == 5 && strstr(json, "123456789abcdef"),
                   "%d nulls: %s", occurrences(json, "null"), json);
        const char *at = strstr(json, "{\"note\": ");
        decode_json(at ? at + 9 : "\"", decoded);
        CHECK_THAT(!strcmp(decoded, hostile), "\"%s\" came back", decoded);
        at = at ? strstr(at + 9, "{\"note\": \"two") : NULL;
        decode_json(at ? at + 9 : "\"", decoded);
        CHECK_THAT(!strcmp(decoded, lines), "\"%s\" came back", decoded);
        CHECK_THAT(occurrences(json, "\xEF\xBF\xBD") >= 20, "what is broken is shown as such: %d",
                   occurrences(json, "\xEF\xBF\xBD"));
        /* The page: before and behind the report as it was, and no text of others ends the script. */
        const char *at_json = strstr(html, "report = "), *end = strstr(html, ";\n</script>\n");
        CHECK_THAT(at_json && end && !memcmp(html, page, (size_t)(at_json - html)) &&
                       end - at_json == (long)(9 + n) && !memcmp(at_json + 9, json, n) &&
                       occurrences(html, "<") == 3 && strlen(end) == 12,
                   "a page: %.300s", html);
    }
    free(json), free(html);
    /* As text: every line once, nothing that steers a terminal. */
    if (r.f) {
        fflush(r.f), rewind(r.f);
        text = zeros(1 << 16, 1);
        n = fread(text, 1, (1 << 16) - 1, r.f);
        fclose(r.f);
        int controls = 0;
        for (size_t i = 0; i < n; i++)
            controls += ((unsigned char)text[i] < 32 && text[i] != '\n') || text[i] == 127;
        CHECK_THAT(n > 500 && !controls && !strstr(text, "\xC2\x9B") &&
                       strstr(text, "a claim: fails; 100% of <it>"),
                   "%zu bytes, %d control characters", n, controls);
        free(text);
    }
    free_report(&r);
}

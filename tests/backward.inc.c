/* The backward pass and attribution: kernels' derivatives, the whole pass, integrated gradients.
 * Formulas are written out again, in double and the plain way; a gradient is held against central
 * differences. */

/* ---------------------------------------------------------------- plain arithmetic */

/* A tracer with an example of random tokens on it. */
typedef struct {
    const steer_model *m;
    tracer *t;
    example x;
    float *v;
} traced;

static void close_traced(traced *w) {
    free((void *)(uintptr_t)w->x.tokens);
    free(w->v);
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

static double weight_value(const weight *w, int j, int c) {
    size_t at = (size_t)j * (size_t)w->cols + (size_t)c;
    if (w->type == F32)
        return (double)((const float *)w->data)[at];
    if (w->type == Q8)
        return (double)((const int8_t *)w->data)[at] * (double)w->scale[at / 32];
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
        for (int c = 0; c < w->cols; c++)
            y[j] += weight_value(w, row + j, c) * x[c];
    }
}

static double inverse_rms64(const double *x, double eps, int d) {
    double square = 0;
    for (int i = 0; i < d; i++)
        square += x[i] * x[i];
    return 1 / sqrt(square / d + eps);
}

static void norm64(double *y, const double *x, const float *w, const steer_config *c) {
    double r = inverse_rms64(x, (double)c->norm_eps, c->d);
    for (int i = 0; i < c->d; i++)
        y[i] = x[i] * r * ((double)c->norm_offset + (double)w[i]);
}

static double act64(double x, int gelu) {
    return gelu ? 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)))
                : x / (1 + exp(-x));
}

static double cap64(double x, double cap) {
    return cap > 0 ? cap * tanh(x / cap) : x;
}

static void softmax64(double *p, int n) {
    double top = p[0], total = 0;
    for (int i = 0; i < n; i++)
        top = fmax(top, p[i]);
    for (int i = 0; i < n; i++)
        total += p[i] = exp(p[i] - top);
    for (int i = 0; i < n; i++)
        p[i] /= total;
}

/* The pattern of head h at position t of block b: p[0 .. t], 0 outside the window. */
static void pattern64(const steer_config *c, int b, int h, int t, const double *q, const double *k,
                      double *p) {
    int H = c->heads, K = c->kv_heads, hd = c->head_dim, first = 0;
    if (c->window && (b + 1) % c->window_every && t >= c->window)
        first = t - c->window + 1;
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
                for (int u = 0; u <= t; u++)
                    *to += p[u] * v[(u * K + h / (H / K)) * hd + i];
            }
        }
}

/* ---------------------------------------------------------------- kernels */

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
    for (int i = 0; i < k->n; i++)
        sum += k->dy[i] * y[i];
    return sum;
}

static double gate_value(const kernel *k, const double *x) { /* x: gates, then ups */
    double sum = 0;
    for (int i = 0; i < k->n; i++)
        sum += k->dy[i] * act64(x[i], k->gelu) * x[k->n + i];
    return sum;
}

static double cap_value(const kernel *k, const double *x) {
    double sum = 0;
    for (int i = 0; i < k->n; i++)
        sum += k->dy[i] * cap64(x[i], k->cap);
    return sum;
}

static double softmax_value(const kernel *k, const double *x) {
    double p[256], sum = 0;
    memcpy(p, x, sizeof *p * (size_t)k->n);
    softmax64(p, k->n);
    for (int i = 0; i < k->n; i++)
        sum += k->dy[i] * p[i];
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
        for (int c = 0; c < k->n; c++)
            sum += k->dy[j] * k->matrix[j * k->n + c] * x[c];
    return sum;
}

static double attention_value(const kernel *k, const double *x) { /* x: q, k, v */
    int q = k->n * k->c->heads * k->c->head_dim, kv = k->n * k->c->kv_heads * k->c->head_dim;
    double *z = doubles(NULL, (size_t)q), sum = 0;
    attention64(k->c, k->block, k->n, x, x + q, x + q + kv, z);
    for (int i = 0; i < q; i++)
        sum += k->dy[i] * z[i];
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
        int d = sizes[i & 3];
        steer_config c = {
            .d = d, .norm_offset = (float)(i >> 2 & 1), .norm_eps = i < 8 ? 1e-5f : 0.3f};
        float *x = floats(1, i, (size_t)d, 2), *w = floats(2, i, (size_t)d, 1),
              *dy = floats(3, i, (size_t)d, 1), *dx = floats(4, i, (size_t)d, 0.5),
              *before = floats(4, i, (size_t)d, 0.5);
        double *x64 = doubles(x, (size_t)d), *dy64 = doubles(dy, (size_t)d);
        kernel k = {.c = &c, .w = w, .dy = dy64, .n = d};
        rmsnorm_back(dx, dy, x, w, c.norm_offset, c.norm_eps, d);
        for (int j = 0; j < d; j++)
            dx[j] -= before[j]; /* it adds to what is there */
        snprintf(what, sizeof what, "rmsnorm_back of %d, offset %g, eps %g", d,
                 (double)c.norm_offset, (double)c.norm_eps);
        most = fmax(most, check_slopes(what, norm_value, &k, x64, d, 1, dx));
        free(x);
        free(w);
        free(dy);
        free(dx);
        free(before);
        free(x64);
        free(dy64);
    }
    for (int gelu = 0; gelu < 2; gelu++) { /* gates from -9 to 9, 0 among them */

        enum { N = 181 };

        float gate[N], *up = floats(5, 0, N, 2), *dh = floats(6, 0, N, 1), both[2 * N];
        double x[2 * N], *dy = doubles(dh, N);
        for (int i = 0; i < N; i++)
            gate[i] = (float)(i - N / 2) / 10;
        for (int i = 0; i < N; i++) {
            x[i] = (double)gate[i];
            x[N + i] = (double)up[i];
        }
        memcpy(both, dh, sizeof(float) * N);
        gated_back(both, both + N, gate, up, N, gelu);
        kernel k = {.dy = dy, .n = N, .gelu = gelu};
        most = fmax(most, check_slopes(gelu ? "gated_back, GELU" : "gated_back, SiLU", gate_value,
                                       &k, x, 2 * N, 1, both));
        free(up);
        free(dh);
        free(dy);
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
        free(x);
        free(dy);
        free(x64);
        free(dy64);
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
        free(x);
        free(p);
        free(dy);
        free(x64);
        free(dy64);
    }
    float one = 1, sure = 1;
    softmax_back(&one, &sure, 1);
    CHECK_THAT(one == 0, "a softmax of one is constant: %g", (double)one);
    for (int half = 1; half <= 64; half = 3 * half + 1) {
        float cosine[64], sine[64], *x = floats(11, half, 2 * (size_t)half, 1),
                                    *dy = floats(12, half, 2 * (size_t)half, 1),
                                    *back = malloc(sizeof(float) * 128);
        double *x64 = doubles(x, 2 * (size_t)half), *dy64 = doubles(dy, 2 * (size_t)half);
        for (int i = 0; i < half; i++) {
            cosine[i] = cosf(2.1f * (float)i + 0.4f);
            sine[i] = sinf(2.1f * (float)i + 0.4f);
        }
        memcpy(back, dy, sizeof(float) * 2 * (size_t)half);
        rope_back(back, cosine, sine, half);
        kernel k = {.dy = dy64, .cosine = cosine, .sine = sine, .n = half};
        snprintf(what, sizeof what, "rope_back of %d pairs", half);
        most = fmax(most, check_slopes(what, rope_value, &k, x64, 2 * half, 1, back));
        free(x);
        free(dy);
        free(back);
        free(x64);
        free(dy64);
    }
    return most;
}

/* linear with parts of W, both ways: against double sums at every number, against central
 * differences at some. Strides are wider than the part, and what lies between stays as it is. */
static double check_linear(const weight *w, part p, int rows) {
    double most = 0, *M = malloc(sizeof *M * (size_t)p.rows * (size_t)p.cols);
    for (int j = 0; j < p.rows; j++)
        for (int c = 0; c < p.cols; c++)
            M[j * p.cols + c] = weight_value(w, p.row + j, p.col + c);
    for (direction to = FORTH; to <= ADD_BACK; to++) {
        int back = to != FORTH, in = back ? p.rows : p.cols, out = back ? p.cols : p.rows,
            xs = in + 3, ys = out + 5;
        float *x = floats(13, back, (size_t)rows * (size_t)xs, 1),
              *y = malloc(4 * (size_t)rows * (size_t)ys);
        double *expected = malloc(sizeof *expected * (size_t)out),
               *weights = doubles(NULL, (size_t)out);
        fit off = {0, 0};
        int spilt = 0;
        char what[96];
        snprintf(what, sizeof what, "linear %s, type %d, %d x %d at %d, %d, %d rows",
                 (const char *[]){"forward", "back", "back, added"}[to], (int)w->type, p.rows,
                 p.cols, p.row, p.col, rows);
        for (int i = 0; i < rows * ys; i++)
            y[i] = 0.75f;
        linear(y, ys, x, xs, w, p, to, rows);
        for (int r = 0; r < rows && to == ADD_BACK; r++)
            for (int j = 0; j < out; j++)
                y[r * ys + j] -= 0.75f;
        for (int r = 0; r < rows; r++) {
            for (int j = 0; j < out; j++)
                expected[j] = 0;
            for (int j = 0; j < p.rows; j++)
                for (int c = 0; c < p.cols; c++)
                    expected[back ? c : j] +=
                        M[j * p.cols + c] * (double)x[r * xs + (back ? j : c)];
            for (int j = 0; j < out; j++)
                hold(&off, (double)y[r * ys + j], expected[j]);
            for (int j = out; j < ys; j++)
                spilt += y[r * ys + j] != 0.75f;
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
        free(x);
        free(y);
        free(expected);
        free(weights);
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
            if (type == Q8 && cases[i].cols % 32)
                continue;
            weight w = random_matrix(60, (int)type, (int)i, cases[i].rows, cases[i].cols, 1, type);
            CHECK_THAT(w.type == type, "type %d", (int)w.type);
            for (int rows = 1; rows <= 30; rows += rows < 9 ? 1 : 21)
                most = fmax(most, check_linear(&w, cases[i].p, rows));
            free((void *)w.data);
            free((void *)w.scale);
        }
    /* The same bits for any number of threads, that is, for any widths of the panels. */
    weight w = random_matrix(61, 0, 0, 270, 150, 1, BF16);
    float *dy = floats(14, 0, 9 * 270, 1), got[2][9 * 150], y[2][9 * 270];
    for (int i = 0; i < 4; i++) {
        int threads = (int[]){1, 2, 3, 64}[i];
        set_threads(threads);
        BY_THREADS(threads) {
            matmul_back(got[i > 0], dy, &w, 9);
            matmul(y[i > 0], dy, &w, 9);
        }
        CHECK_THAT(!i || !memcmp(got[0], got[1], sizeof got[0]), "back, %d threads", threads);
        CHECK_THAT(!i || !memcmp(y[0], y[1], sizeof y[0]), "forward, %d threads", threads);
    }
    set_threads(1);
    free(dy);
    free((void *)w.data);
    free((void *)w.scale);
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
            for (size_t j = 0; j < 2 * (size_t)n * width; j++)
                tapes[a][j] = NAN;
            memcpy(tapes[a] + (size_t)(b - 1) * (size_t)n * width, flat + at,
                   sizeof(float) * (size_t)n * width);
        }
        steer_tape tape = {.q = tapes[0], .k = tapes[1], .v = tapes[2], .rows = n, .first = 1};
        back_scratch s = {0};
        float *heap = zeros(3 * q + all, sizeof *heap);
        float *scratch = zeros(attention_size(&m.config, (size_t)n), sizeof *scratch);
        s.dz = heap;
        s.dk = s.dz + q;
        s.dv = s.dk + q;
        s.heads = s.dv + q; /* of which dq is set here */
        for (size_t j = 0; j < q; j++)
            s.heads[j] = s.dk[j] = s.dv[j] = NAN;
        float *dz = floats(21, i, q, 1);
        memcpy(s.dz, dz, sizeof(float) * q);
        for (int h = 0; h < H; h++)
            attend_back(&m, &tape, &s, b, h, 0, n, scratch);
        for (int t = 0; t < n; t++)
            memcpy(got + t * H * hd, s.heads + t * (H + 2 * K) * hd,
                   sizeof(float) * (size_t)(H * hd));
        float *summed = got + q; /* k and v: the sum over the group's heads */
        for (int a = 0; a < 2; a++)
            for (int t = 0; t < n; t++)
                for (int g = 0; g < K; g++)
                    for (int j = 0; j < hd; j++) {
                        const float *from = a ? s.dv : s.dk;
                        double sum = 0;
                        for (int h = g * (H / K); h < (g + 1) * (H / K); h++)
                            sum += (double)from[(t * H + h) * hd + j];
                        *summed++ = (float)sum;
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
        free(flat);
        free(got);
        free(x);
        free(dz);
        free(dz64);
        free(heap);
        free(scratch);
        for (int a = 0; a < 3; a++)
            free(tapes[a]);
    }
    return most;
}

static void test_kernels_back(void) {
    double elementwise = check_elementwise(), parts = check_parts(), attention = check_attention();
    printf("  relative errors against central differences: norms, gates, caps, softmax, rope %.2g; "
           "linear %.2g; attention %.2g\n",
           elementwise, parts, attention);
}

/* ---------------------------------------------------------------- the whole pass */

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
    if (p->nodes)
        memcpy(p->nodes + (size_t)(u * p->n + t) * d, x, sizeof *x * d);
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
                const weight *weights[] = {&w->q, &w->k, &w->v};
                const float *biases[] = {w->q_bias, w->k_bias, w->v_bias};
                double *to = (double *[]){q, k, v}[kind] + (t * (kind ? K : H) + g) * hd;
                slot_input64(p, i * width + s, t, step, x[t], w->attn_norm, in);
                product64(to, weights[kind], g * hd, hd, in, biases[kind]);
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
            if (c->post_norms)
                norm64(out, out, w->post_attn_norm, c);
            for (int j = 0; j < d; j++)
                x[t][j] += out[j];
            push(p, PUSH_OUT, 1 + 2 * i, t, step, x[t]);
            slot_input64(p, i * width + width - 1, t, step, x[t], w->mlp_norm, in);
            product64(gate, &w->gate, 0, c->ff, in, NULL);
            product64(up, &w->up, 0, c->ff, in, NULL);
            for (int j = 0; j < c->ff; j++)
                gate[j] = act64(gate[j], c->gelu) * up[j];
            product64(out, &w->down, 0, d, gate, NULL);
            if (c->post_norms)
                norm64(out, out, w->post_mlp_norm, c);
            keep_node(p, 1 + i * (H + 1) + H, t, out);
            for (int j = 0; j < d; j++)
                x[t][j] += out[j];
            push(p, PUSH_OUT, 2 + 2 * i, t, step, x[t]);
        }
    }
    for (int t = 0; t < p->n; t++) {
        slot_input64(p, (c->layers - p->layer) * width, t, step, x[t], m->final_norm, in);
        for (int j = 0; j < d && p->weights; j++)
            sum += p->weights[t * d + j] * in[j];
        if (p->final)
            memcpy(p->final + t * d, in, sizeof *in * (size_t)d);
    }
    return sum;
}

/* Means over passes of the gradients of contributions and, behind and before its norm, of each
 * slot, put together from what a tracer sums of each pass. */
typedef struct {
    float *out;        /* [1 + 2 blocks][n][d] */
    float *in, *aware; /* [slots][n][d] */
} slot_means;

static slot_means new_means(const tracer *t, int n) {
    size_t plane = (size_t)(n * t->m->config.d);
    slot_means g = {zeros(plane * (size_t)(1 + 2 * t->graph.blocks), sizeof(float)),
                    zeros(plane * (size_t)t->graph.slots, sizeof(float)),
                    zeros(plane * (size_t)t->graph.slots, sizeof(float))};
    return g;
}

static void free_means(slot_means *g) {
    free(g->out);
    free(g->in);
    free(g->aware);
}

/* The gradients of dm/dx_L = t->dx, 0 before row `from`, of the run on t->tape[2], this pass's
 * share. */
static void add_pass(tracer *t, slot_means *g, int from, int n, float share) {
    int d = t->m->config.d, layers = t->m->config.layers, attention = slots_of_attention(&t->graph);
    begin_sums(t, n, share);
    backward(t->c, &t->tape[2], from, n, t->dx, &t->back, &t->grad);
    for (int i = 0; i < (1 + 2 * t->graph.blocks) * n * d; i++)
        g->out[i] += t->grad.out[i];
    for (int b = t->graph.layer; b <= layers; b++)
        for (int aware = 0; aware < 2; aware++) {
            int slots = slot_gradients(t, b, aware, n), first = slot_of(&t->graph, b, 0);
            for (int i = 0; i < slots; i++)
                for (int p = 0; p < n; p++) {
                    int slot = first + i, row = slot * n + p;
                    const steer_tape *tape = &t->tape[2];
                    const float *x =
                        tape_at(tape, i == attention ? tape->mid : tape->resid, d, b, p);
                    float *to = row_at(aware ? g->aware : g->in, (size_t)row, (size_t)d);
                    add_scaled(to, 1, row_at(t->slot_G, (size_t)(i * n + p), (size_t)d), d);
                    if (aware)
                        add_scaled(to, -t->grad.along[row], x, d);
                }
        }
}

/* A tape of a tracer's blocks with what is looked at here. */
static steer_tape new_tape(const tracer *t) {
    const steer_config *c = &t->m->config;
    steer_tape tape = {.rows = t->max, .first = t->graph.layer};
    size_t rows = (size_t)(t->graph.blocks + 1) * (size_t)t->max;
    tape.resid = zeros(rows * (size_t)c->d, sizeof(float));
    tape.mid = zeros(rows * (size_t)c->d, sizeof(float));
    tape.q = zeros(rows * (size_t)(c->heads * c->head_dim), sizeof(float));
    tape.z = zeros(rows * (size_t)(c->heads * c->head_dim), sizeof(float));
    tape.k = zeros(rows * (size_t)(c->kv_heads * c->head_dim), sizeof(float));
    tape.v = zeros(rows * (size_t)(c->kv_heads * c->head_dim), sizeof(float));
    return tape;
}

/* A run of an example from the base run's x_l on such a tape. */
static steer_tape run_taped(tracer *t, const example *x, const float *s, float coeff) {
    steer_tape tape = new_tape(t);
    steer_error e = {0};
    traced_plan memory;
    const steer_plan *plan = plan_from(t, &memory, t->tape[0].resid, s, coeff);
    CHECK_THAT(!run_example(t, x, &plan, 1, &tape, &e), "%s", e.text);
    return tape;
}

static void free_tape(steer_tape *tape) {
    float *arrays[] = {tape->resid, tape->mid, tape->q, tape->z, tape->k, tape->v};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        free(arrays[i]);
}

/* Every gradient of the backward (contributions, slots, slots before their norms) along random
 * directions: a float's difference quotient would be too noisy, so the model runs in double. */
static double check_backward(int kind) {
    enum { N = 9, DIRECTIONS = 3 };

    traced w = {0};
    steer_error e = {0};
    if (!open_traced(&w, kind, N, 4, 1, 0))
        return INFINITY;
    tracer *t = w.t;
    int d = w.m->config.d, blocks = t->graph.blocks;
    size_t plane = (size_t)(N * d);
    changes plan = {.add = w.v, .coeff = 0.7f, .layer = 1};
    const steer_plan *plans = plan_of(&plan);
    CHECK_THAT(!run_example(t, &w.x, &plans, 1, &t->tape[2], &e), "%s", e.text);
    float *weights = floats(96, kind, plane, 1), *alone = malloc(sizeof(float) * plane);
    int from = w.x.n_prompt - 1; /* the first row whose prediction is read */
    memset(weights, 0, sizeof *weights * (size_t)(from * d));
    double *start = doubles(NULL, plane), *weights64 = doubles(weights, plane), most = 0;
    for (size_t i = 0; i < plane; i++)
        start[i] = (double)t->tape[2].resid[i];
    memcpy(t->dx, weights, sizeof(float) * plane);
    memcpy(alone, weights, sizeof(float) * plane);
    slot_means sums = new_means(t, N);
    add_pass(t, &sums, from, N, 1);
    pushed p = {.m = w.m, .layer = 1, .n = N, .start = start, .weights = weights64};
    static const char *const places[] = {
        [PUSH_OUT] = "out", [PUSH_IN] = "in", [PUSH_STREAM] = "aware"};
    const float *const arrays[] = {
        [PUSH_OUT] = sums.out, [PUSH_IN] = sums.in, [PUSH_STREAM] = sums.aware};
    for (p.kind = PUSH_OUT; p.kind <= PUSH_STREAM; p.kind++) {
        const float *all = arrays[p.kind];
        int n = p.kind == PUSH_OUT ? 1 + 2 * blocks : t->graph.slots;
        for (p.index = 0; p.index < n; p.index++) {
            const float *g = all + plane * (size_t)p.index;
            fit off = {0, 0};
            for (int k = 0; k < DIRECTIONS; k++) {
                float *along = floats(97 + k, p.index, plane, 1);
                double *along64 = doubles(along, plane), expected, sum = 0, h = 1e-5;
                p.push = along64;
                expected = (pushed_value(&p, h) - pushed_value(&p, -h)) / (2 * h);
                for (size_t i = 0; i < plane; i++)
                    sum += (double)g[i] * along64[i];
                hold(&off, sum, expected);
                free(along);
                free(along64);
            }
            most = fmax(most, misfit(&off));
            CHECK_THAT(misfit(&off) <= 2e-5, "%s: %s %d: relative error %.3g", family_names[kind],
                       places[p.kind], p.index, misfit(&off));
        }
    }
    CHECK_THAT(!memcmp(t->dx, t->grad.out, sizeof(float) * plane), "dx is not the site's gradient");
    backward(t->c, &t->tape[2], from, N, alone, &t->back, NULL);
    CHECK_THAT(!memcmp(alone, t->dx, sizeof(float) * plane), "dx depends on what is kept");
    steer_tape whole_tape = t->tape[2]; /* another one, whose rows are all recorded, to the last */
    CHECK_THAT(!run_example(t, &w.x, &plans, 1, &whole_tape, &e), "%s", e.text);
    memcpy(alone, weights, sizeof(float) * plane);
    backward(t->c, &whole_tape, 0, N, alone, &t->back, NULL);
    CHECK_THAT(!memcmp(alone, t->dx, sizeof(float) * plane), "dx depends on unread rows");
    free_means(&sums);
    free(weights);
    free(alone);
    free(start);
    free(weights64);
    close_traced(&w);
    return most;
}

/* What must hold after `attribute` by the vector s, from its runs and passes, run again. Returns
 * the largest relative error. */
static double check_attribution(tracer *t, const example *x, const float *s, int steps,
                                double *scores, const char *name) {
    const steer_model *m = t->m;
    const steer_config *c = &m->config;
    int source = !x->steered_text, n = x->n, d = c->d, H = c->heads, K = c->kv_heads,
        width = H + 2 * K + 1, nodes = t->graph.nodes, blocks = t->graph.blocks, hd = c->head_dim;
    size_t plane = (size_t)(n * d), at_block = (size_t)t->max * (size_t)d;
    steer_tape ends[2] = {run_taped(t, x, NULL, 0), run_taped(t, x, s, x->coeff)};
    const steer_tape *src = &ends[source], *dst = &ends[!source];
    slot_means g = new_means(t, n);
    for (int i = 0; i < steps; i++) {
        steer_error e = {0};
        traced_plan memory;
        float alpha = ((float)i + 0.5f) / (float)steps;
        const steer_plan *plan = plan_from(t, &memory, t->tape[0].resid, s, alpha * x->coeff);
        CHECK_THAT(!run_example(t, x, &plan, 1, &t->tape[2], &e), "%s", e.text);
        metric_gradient(t, x, STEER_LOGIT, source, (int)scores[SCORE_POSITIONS]);
        add_pass(t, &g, x->n_prompt - 1, n, 1.0f / (float)steps);
    }
    fit into = {0, 0}, split = {0, 0}, node = {0, 0}, coarse[3] = {{0, 0}, {0, 0}, {0, 0}};
    /* All scores into a slot add up to <x_src - x_dst, J^T G>, the paper's form of them to <..,
     * G>. */
    for (int i = 0; i < 2 * t->graph.slots; i++) {
        int form = i & 1, v = i >> 1, b = v / width, mlp = v == b * width + width - 1;
        double found = 0, expected = 0;
        const float *G = form ? g.aware : g.in;
        for (int u = 0; u < nodes; u++)
            found += edge_scores(t, scores, form)[v * nodes + u];
        for (int p = 0; p < n; p++)
            for (int k = 0; k < d; k++) {
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
        const float *out = g.out + k, *in = g.aware + k;
        hold(&whole, (double)out[plane * (size_t)(2 * blocks)],
             (double)in[plane * (size_t)(t->graph.slots - 1)]);
        for (int b = 0; b < blocks; b++) {
            size_t slot = (size_t)(b * width);
            double sum = (double)out[plane * (size_t)(1 + 2 * b)];
            hold(&whole, sum,
                 (double)out[plane * (size_t)(2 + 2 * b)] +
                     (double)in[plane * (slot + (size_t)width - 1)]);
            for (int i = 0; i < width - 1; i++)
                sum += (double)in[plane * (slot + (size_t)i)];
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
                   (double)g.out[p * d + k];
        hold(&node, vector_scores(t, scores)[k], sum);
    }
    for (int b = 0; b < blocks; b++) {
        int first = node_of(&t->graph, t->graph.layer + b, 0);
        for (int h = 0; h <= H; h++) {
            double sum = 0;
            for (int p = 0; p < n; p++)
                for (int k = 0; k < d; k++)
                    sum +=
                        (double)delta_of(t, p, first + h)[k] *
                        (double)g.out[plane * (size_t)(1 + 2 * b + (h == H)) + (size_t)(p * d + k)];
            hold(&node, scores[SCORE_NODES + 1 + b * (H + 1) + h], sum);
        }
        for (int p = 0; p < n; p++)
            for (int k = 0; k < d; k++) {
                size_t i = (size_t)(p * d + k), here = (size_t)b * at_block + i;
                double sum = 0, before = (double)src->resid[here] - (double)dst->resid[here],
                       between = (double)src->mid[here] - (double)dst->mid[here],
                       after = (double)src->resid[here + at_block] -
                               (double)dst->resid[here + at_block];
                for (int h = 0; h < H; h++)
                    sum += (double)delta_of(t, p, first + h)[k];
                hold(&split, before + sum, between);
                hold(&split, between + (double)delta_of(t, p, first + H)[k], after);
            }
    }
    CHECK_THAT(misfit(&node) <= 2e-5, "%s: effects of nodes: relative error %.3g", name,
               misfit(&node));
    CHECK_THAT(misfit(&split) <= 2e-5, "%s: deltas do not add up to the residual: %.3g", name,
               misfit(&split));
    /* 3.10.4: after the last step the first block's dq, dk, dv are still there; the coarse slot's
     * gradient is their product with the whole matrix. */
    double most = fmax(fmax(misfit(&into), misfit(&split)), fmax(misfit(&whole), misfit(&node)));
    if (steps == 1) {
        const block *w = &m->blocks[t->graph.layer];
        int first[4] = {0, H, H + K, H + 2 * K};
        for (int kind = 0; kind < 3; kind++) {
            int heads = first[kind + 1] - first[kind];
            const weight *by = (const weight *[]){&w->q, &w->k, &w->v}[kind];
            float *dy = malloc(sizeof(float) * (size_t)(n * heads * hd)),
                  *G = malloc(sizeof(float) * plane);
            for (int p = 0; p < n; p++)
                for (int h = 0; h < heads; h++)
                    memcpy(dy + (p * heads + h) * hd,
                           t->back.heads + (p * first[3] + first[kind] + h) * hd,
                           sizeof(float) * (size_t)hd);
            matmul_back(G, dy, by, n);
            for (size_t k = 0; k < plane; k++) {
                double sum = 0;
                for (int i = first[kind]; i < first[kind + 1]; i++)
                    sum += (double)g.in[plane * (size_t)i + k];
                hold(&coarse[kind], sum, (double)G[k]);
            }
            CHECK_THAT(misfit(&coarse[kind]) <= 1e-5 && coarse[kind].largest > 1e-6,
                       "%s: coarse %c: %.3g of %.3g", name, "qkv"[kind], misfit(&coarse[kind]),
                       coarse[kind].largest);
            most = fmax(most, misfit(&coarse[kind]));
            free(dy);
            free(G);
        }
    }
    free_means(&g);
    free_tape(&ends[0]);
    free_tape(&ends[1]);
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
    if (!(b->m = open_or_fail(path)))
        return 0;
    steer_context *c = steer_context_new(b->m, &l, &e);
    steer_sums sums[2] = {{0}};
    CHECK_THAT(c, "%s", e.text);
    for (int k = 0; k < 3; k++)
        CHECK_THAT(!steer_prompts_load(&p[k], b->m, files[k], 16, &e), "%s", e.text);
    for (int k = 0; k < 2; k++) {
        sums[k].sum =
            zeros(3 * (size_t)(b->m->eoi * b->m->config.layers * b->m->config.d), sizeof(double));
        CHECK_THAT(!steer_means(c, &p[k], NULL, 0, &sums[k], &e) && sums[k].count == 16, "%s",
                   e.text);
    }
    CHECK_THAT(!steer_dim(&b->v, b->m, &sums[0], &sums[1], layer, pos, 1, &e), "%s", e.text);
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
    for (int k = 0; k < 2; k++)
        b->n[k] = b->prompt + jobs[k].n_out;
    for (int k = 0; k < 3; k++)
        steer_prompts_free(&p[k]);
    steer_context_free(c);
    free(sums[0].sum);
    free(sums[1].sum);
    return 1;
}

static void close_boxed(boxed *b) {
    steer_vector_free(&b->v);
    steer_close(b->m);
}

/* Patterns of a tape: of the rows that a head sees, adding up to 1, with the values giving z. */
static void check_patterns(int kind) {
    enum { N = 9 };

    traced w = {0};
    steer_error e = {0};
    if (!open_traced(&w, kind, N, 4, 1, 1))
        return;
    const steer_config *c = &w.m->config;
    int hd = c->head_dim, qd = c->heads * hd, kd = c->kv_heads * hd, group = c->heads / c->kv_heads;
    CHECK_THAT(!run_ends(w.t, &w.x, w.v, &e), "%s", e.text);
    steer_tape taped = run_taped(w.t, &w.x, w.v, w.x.coeff), *t = &taped;
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
                                 &e) == STEER_EARG &&
                       strstr(e.text, "no pattern"),
                   "pattern %zu: %s", i, e.text);
    steer_tape bare = *t;
    bare.k = NULL;
    CHECK_THAT(steer_pattern(w.m, &bare, 1, 0, 0, N, pattern, &e) == STEER_EARG, "without keys");

    /* Scores are what is asked for, whatever else is. */
    size_t edges = edge_places(&w.t->graph);
    double *all = zeros(scores_width(w.t), sizeof *all), *edge = zeros(edges, sizeof *edge);
    size_t plane = (size_t)w.x.n * (size_t)c->d,
           slopes = plane * (size_t)(1 + 2 * w.t->graph.blocks);
    float *gradient = malloc(slopes * sizeof *gradient);
    memset(gradient, 0xFF, slopes * sizeof *gradient);
    steer_scores some = {.edge = edge, .gradient = gradient, .positions = -1},
                 nothing = {.total = 7};
    CHECK_THAT(!attribute(w.t, &w.x, w.v, STEER_LOGIT, 2, all, &e) &&
                   !steer_attribute(w.t, &w.x, w.v, STEER_LOGIT, 2, &some, &e) &&
                   !steer_attribute(w.t, &w.x, w.v, STEER_LOGIT, 2, &nothing, &e),
               "%s", e.text);
    CHECK_THAT(!memcmp(edge, edge_scores(w.t, all, 0), edges * sizeof *edge) &&
                   some.positions == all[SCORE_POSITIONS] && some.total == nothing.total &&
                   some.total == all[SCORE_TOTAL] && nothing.estimate == all[SCORE_ESTIMATE],
               "%s: other scores where fewer are asked for", family_names[kind]);
    double along = 0; /* the steering site's Delta is +-a s at every position */
    for (size_t i = 0; i < plane; i++)
        along += (double)gradient[i] * w.v[i % (size_t)c->d] * w.x.coeff;
    CHECK_THAT(fabs(fabs(along) - fabs(some.estimate)) < 1e-4 * fabs(some.estimate) &&
                   !memcmp(gradient, w.t->grad.out, slopes * sizeof *gradient),
               "%s: the gradient is not that of the scores", family_names[kind]);
    free(gradient);
    free(all);
    free(edge);
    free_tape(&taped);
    close_traced(&w);
}

static void test_patterns(void) {
    for (int kind = 0; kind < FAMILIES; kind++)
        check_patterns(kind);
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
            if (!open_traced(&w, kind, 11, 4, 7, text))
                continue;
            size_t width = scores_width(w.t);
            double *scores[2] = {zeros(width, sizeof(double)), zeros(width, sizeof(double))},
                   node[2][64] = {{0}};
            for (int steps = 3; steps; steps = steps == 3 ? 1 : 0) {
                CHECK_THAT(!attribute(w.t, &w.x, w.v, STEER_LOGIT, steps, scores[0], &e), "%s",
                           e.text);
                CHECK_THAT(scores[0][SCORE_POSITIONS] > 0, "%s: no positions of interest",
                           family_names[kind]);
                identity = fmax(identity, check_attribution(w.t, &w.x, w.v, steps, scores[0],
                                                            family_names[kind]));
            }
            /* 3.10.3: m(source) >= 0 >= m(destination) */
            int n_poi = find_poi(w.t, &w.x, STEER_LOGIT), source = !text;
            double m[2];
            for (int k = 0; k < 2; k++)
                m[k] = metric_of(w.t, STEER_LOGIT, source, w.t->final[k ? source : !source], n_poi);
            CHECK_THAT(m[1] >= 0 && m[0] <= 0 && fabs(m[1] - m[0] - scores[0][SCORE_TOTAL]) < 1e-9,
                       "m %g, %g, total %g", m[1], m[0], scores[0][SCORE_TOTAL]);
            /* Patching the vector's own node is the whole effect. Threads change no bits. */
            for (int i = 0; i < (text ? 3 : 1); i++) {
                set_threads(1 << i);
                traced again = {0};
                if (!open_traced(&again, kind, 11, 4, 7, text))
                    continue;
                CHECK_THAT(
                    !attribute(again.t, &again.x, again.v, STEER_LOGIT, 1, scores[1], &e) &&
                        !steer_patch_exactly(again.t, &again.x, again.v, node[i > 0], NULL, &e),
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
            free(scores[0]);
            free(scores[1]);
            close_traced(&w);
        }
    }
    for (int i = 0; i < 2; i++) { /* 3.10.1: completeness */
        boxed b = {0};
        if (!open_boxed(&b, sites[i].path, sites[i].layer, sites[i].pos))
            continue;
        for (int text = 0; text < 2; text++) {
            tracer *t = NULL;
            example x = {b.tokens[text], b.n[text], b.prompt, 1, text};
            CHECK_THAT(!new_tracer(&t, b.m, sites[i].layer, x.n, x.n - x.n_prompt + 1, 1, &e), "%s",
                       e.text);
            double *scores = zeros(scores_width(t), sizeof *scores);
            for (int k = 0; k < 2; k++) {
                int many = SANITIZED ? 24 : 64, steps = k ? many : 10;
                CHECK_THAT(!attribute(t, &x, b.v.v, STEER_LOGIT, steps, scores, &e), "%s", e.text);
                double off = fabs(scores[SCORE_ESTIMATE] / scores[SCORE_TOTAL] - 1), sum = 0;
                for (int j = 0; j < b.m->config.d; j++)
                    sum += vector_scores(t, scores)[j];
                gap[k] = fmax(gap[k], isnan(off) ? INFINITY : off);
                CHECK_THAT(scores[SCORE_POSITIONS] > 0 && scores[SCORE_TOTAL] > 0.5 &&
                               fabs(sum - scores[SCORE_ESTIMATE]) < 1e-9,
                           "%s: %g positions, total %g", sites[i].path, scores[SCORE_POSITIONS],
                           scores[SCORE_TOTAL]);
                CHECK_THAT(off <= (k ? 1e-3 : 1e-2), "%s, %s text, %d steps: %g of %g",
                           sites[i].path, text ? "steered" : "base", steps, scores[SCORE_ESTIMATE],
                           scores[SCORE_TOTAL]);
                if (!k)
                    identity = fmax(identity,
                                    check_attribution(t, &x, b.v.v, steps, scores, sites[i].path));
            }
            free(scores);
            free_tracer(&t);
        }
        close_boxed(&b);
    }
    printf("  relative errors: gradients %.2g, identities %.2g, the vector's own node %.2g; "
           "completeness "
           "gap %.2g at 10 steps, %.2g at 64 (24 when slow)\n",
           gradients_off, identity, whole, gap[0], gap[1]);
}

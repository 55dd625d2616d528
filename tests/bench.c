/* What tools/bench.py (`make bench`) times of steer.c, in a process of its own:
 *     bench linear    linear layers on a few shapes: a line each of columns, rows of W, rows of x,
 *                     GFLOP/s; first of all the machine's peak of multiply-adds
 *     bench memory    GB/s at which the threads read from memory
 *     bench MODEL     for each line "prefill N" or "generate N" of standard input the seconds that
 *                     N tokens at once, or one after another, take, processors' seconds, and the
 *                     bytes of the weights that a run reads */
#define main steer_main /* the program's own */
#include "../steer.c"
#undef main

/* ---- Linear layers, in many short turns. Other work disturbs some turns, for seconds at a time:
 * the best turn of each counts. */
enum { CHAINS = 12, STEPS = 400000 };

static WIDE float chains(float seed) { /* of multiply-adds that wait for nothing but themselves */
    vec c[CHAINS], p = (vec){0} + 1e-6f, q = (vec){0} + seed, sum = {0};
    EACH (i, CHAINS)
        c[i] = p * (float)i;
    for (int t = 0; t < STEPS; t++)
        EACH (i, CHAINS)
            c[i] = multiply_add(c[i], p, q);
    EACH (i, CHAINS)
        sum += c[i];
    return sum[0];
}

static double peak_gflops(void) {
    double started = seconds(), flops = 0;
#ifdef _OPENMP
#pragma omp parallel reduction(+ : flops)
#endif
    flops += chains(1e-6f * (float)(1 + thread_number())) != 1 ? 2.0 * CHAINS * LANES * STEPS : 0;
    return flops / (seconds() - started) / 1e9;
}

static int time_layers(void) {
    enum { SHAPES = 4, BATCHES = 3, TURNS = 40, WIDEST = 4864, NARROW = 896, MOST_ROWS = 256 };

    static const int shapes[SHAPES][2] = {{576, 1536}, {1536, 576}, {896, 4864}, {4864, 896}};
    static const int batches[BATCHES] = {1, 64, 256};
    uint16_t *w = zeros((size_t)WIDEST * NARROW, sizeof *w);
    float *x = zeros((size_t)MOST_ROWS * WIDEST, sizeof *x);
    float *y = zeros((size_t)MOST_ROWS * WIDEST, sizeof *y);
    double best[SHAPES][BATCHES] = {{0}}, peak = 0;
    if (!w || !x || !y)
        return 1;
    for (int t = 0; t < WIDEST * NARROW; t++)
        w[t] = (uint16_t)(0x3C00 + t % 97);
    for (int t = 0; t < MOST_ROWS * WIDEST; t++)
        x[t] = 0.01f * (float)(t % 89);
    for (int turn = 0; turn < TURNS; turn++) {
        peak = fmax(peak, peak_gflops());
        for (int i = 0; i < SHAPES; i++)
            for (int j = 0; j < BATCHES; j++) {
                weight W = {w, NULL, BF16, shapes[i][1], shapes[i][0]};
                double flops = 2.0 * batches[j] * W.rows * W.cols;
                int times = 1 + (int)(1e8 / flops);
                double started = seconds();
                BY_THREADS(thread_count())
                for (int t = 0; t < times; t++)
                    matmul(y, x, &W, batches[j]);
                best[i][j] = fmax(best[i][j], flops * times / (seconds() - started) / 1e9);
            }
    }
    printf("%.2f\n", peak);
    for (int i = 0; i < SHAPES; i++)
        for (int j = 0; j < BATCHES; j++)
            printf("%d %d %d %.2f\n", shapes[i][0], shapes[i][1], batches[j], best[i][j]);
    free(w);
    free(x);
    free(y);
    return 0;
}

/* ---- Memory: each thread reads its part of a block that no cache holds; the best turn counts. */
static WIDE float sum_of(const float *x, size_t n) {
    vec sum[CHAINS] = {{0}};
    for (size_t i = 0; i < n; i += CHAINS * LANES)
        UNROLL for (int j = 0; j < CHAINS; j++) {
            __builtin_prefetch(x + i + (8 * CHAINS + j) * LANES);
            sum[j] += *(const vec *)(x + i + j * LANES);
        }
    for (int j = 1; j < CHAINS; j++)
        sum[0] += sum[j];
    return sum[0][0];
}

static int time_memory(void) {
    enum { TURNS = 8, PART = CHAINS * LANES << 19 }; /* floats of a thread */

    int threads = thread_count();
    float *x = zeros((size_t)threads * PART + 16 * CHAINS * LANES, sizeof *x);
    double best = 0, sum = 0;
    if (!x)
        return 1;
    for (size_t i = 0; i < (size_t)threads * PART; i++)
        x[i] = 1;
    for (int turn = 0; turn < TURNS; turn++) {
        double started = seconds();
        BY_THREADS(threads)
        PARALLEL_FOR(threads)
        for (int t = 0; t < threads; t++) {
            float got = sum_of(x + (size_t)t * PART, PART);
#ifdef _OPENMP
#pragma omp atomic
#endif
            sum += got;
        }
        best = fmax(best, (double)threads * PART * sizeof *x / (seconds() - started) / 1e9);
    }
    printf("%.2f\n", sum > 0 ? best : 0);
    free(x);
    return 0;
}

/* ---- A model. */

enum {
    BEGINNING = 16,
    MOST = 256
}; /* tokens before those that are generated; at most, of either */

/* n rows from position `from` on, of tokens that mean nothing. */
static int run_rows(steer_context *c, int from, int n, steer_error *e) {
    steer_row rows[MOST];
    for (int i = 0; i < n; i++)
        rows[i] =
            (steer_row){.pos = from + i, .token = 1000 + 7 * (from + i), .logits = i == n - 1};
    return steer_run(c, rows, n, NULL, e);
}

static double bytes_of(const weight *w) {
    static const double sizes[] = {[F32] = 4, [BF16] = 2, [Q8] = 1 + 4.0 / GROUP};
    return sizes[w->type] * w->rows * w->cols;
}

/* Bytes of the linear layers, which a run of one row reads once. */
static double weights_read(const steer_model *m) {
    double bytes = bytes_of(&m->unembed);
    for (int b = 0; b < m->config.layers; b++) {
        const block *at = &m->blocks[b];
        const weight *all[] = {&at->q, &at->k, &at->v, &at->o, &at->gate, &at->up, &at->down};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            bytes += bytes_of(all[i]);
    }
    return bytes;
}

static int time_model(const char *path) {
    steer_error e;
    steer_model *m = steer_open(path, 0, &e);
    steer_limits l = {.streams = 1, .positions = BEGINNING + MOST, .rows = MOST, .logits = 1};
    steer_context *c = m ? steer_context_new(m, &l, &e) : NULL;
    char what[16];
    int n, bad = !c;
    while (!bad && scanf("%15s %d", what, &n) == 2) {
        bad = outside(n, 1, MOST) || steer_begin(c, 0, NULL, -1, NULL, &e);
        int generate = *what == 'g';
        if (generate && !bad)
            bad = run_rows(c, 0, BEGINNING, &e);
        double started = seconds();
        clock_t used = clock();
        for (int i = 0; i < n && generate && !bad; i++)
            bad = run_rows(c, BEGINNING + i, 1, &e);
        if (!generate && !bad)
            bad = run_rows(c, 0, n, &e);
        printf("%.6f %.6f %.0f\n", seconds() - started, (double)(clock() - used) / CLOCKS_PER_SEC,
               weights_read(m));
        fflush(stdout);
    }
    if (bad)
        fprintf(stderr, "bench: %s\n", e.text);
    steer_context_free(c);
    steer_close(m);
    return bad;
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    if (!strcmp(argv[1], "linear"))
        return time_layers();
    if (!strcmp(argv[1], "memory"))
        return time_memory();
#ifdef _OPENMP
    start_anew(argv, thread_count()); /* as the program does: threads that wait and sleep */
#endif
    return time_model(argv[1]);
}

/* The speed of the kernels of steer.c: `make bench`. */
#define main steer_main /* the program's own */
#include "../steer.c"
#undef main

/* Linear layers on SmolLM2's shapes against the machine's peak of multiply-adds, in many short
 * turns. Other work disturbs some turns, for seconds at a time: the best turn of each counts. */
enum { CHAINS = 12, STEPS = 400000 };

static WIDE float chains(float seed) { /* of multiply-adds that wait for nothing but themselves */
    vec c[CHAINS], p = (vec){0} + 1e-6f, q = (vec){0} + seed, sum = {0};
    for (int i = 0; i < CHAINS; i++)
        c[i] = p * (float)i;
    for (int t = 0; t < STEPS; t++)
        UNROLL for (int i = 0; i < CHAINS; i++) c[i] = c[i] * p + q;
    for (int i = 0; i < CHAINS; i++)
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

int main(void) {
    enum { SHAPES = 4, BATCHES = 5, TURNS = 400 };

    static const int shapes[SHAPES][2] = {{576, 192}, {576, 576}, {576, 1536}, {1536, 576}};
    static const int batches[BATCHES] = {1, 16, 64, 256, 512};

    enum { WIDEST = 1536, MOST_ROWS = 512 };

    uint16_t *w = zeros((size_t)WIDEST * 576, sizeof *w);
    float *x = zeros((size_t)MOST_ROWS * WIDEST, sizeof *x);
    float *y = zeros((size_t)MOST_ROWS * WIDEST, sizeof *y);
    double best[SHAPES][BATCHES] = {{0}}, peak = 0;
    if (!w || !x || !y)
        return 1;
    for (int t = 0; t < WIDEST * 576; t++)
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
    printf("%d threads, vectors of %d floats; the best of %d turns; peak of multiply-adds %.0f "
           "GFLOP/s\n",
           thread_count(), LANES, TURNS, peak);
    for (int i = 0; i < SHAPES; i++)
        for (int j = 0; j < BATCHES; j++)
            printf("%5d -> %-5d %4d rows  %6.1f GFLOP/s  %3.0f%% of the peak\n", shapes[i][0],
                   shapes[i][1], batches[j], best[i][j], 100 * best[i][j] / peak);
    free(w);
    free(x);
    free(y);
    return 0;
}

/* The speed of the kernels of steer.c: `make bench`. */
#define main steer_main /* the program's own */
#include "../steer.c"
#undef main

/* Linear layers on SmolLM2's shapes against the machine's peak of multiply-adds, taken in turns. */
static double peak_gflops(void) {
    enum { CHAINS = 12, TURNS = 8000000 };
    double started = seconds(), sum = 0;
#ifdef _OPENMP
#pragma omp parallel reduction(+ : sum)
#endif
    {
        float panel[PW * 4], a[MR * 4], y[MR * PW] = {0};
        for (int i = 0; i < PW * 4; i++) panel[i] = 1e-6f;
        for (int i = 0; i < MR * 4; i++) a[i] = 1e-6f * (float)(1 + thread_number());
        vec c[CHAINS];
        for (int i = 0; i < CHAINS; i++) c[i] = *(vec *)(panel) * (float)i;
        vec p = *(vec *)panel, q = *(vec *)(a);
        for (int t = 0; t < TURNS; t++) {
            UNROLL for (int i = 0; i < CHAINS; i++) c[i] = c[i] * p + q;
        }
        for (int i = 0; i < CHAINS; i++) *(vec *)y += c[i];
        sum += y[0] != 1 ? 2.0 * CHAINS * LANES * TURNS : 0;
    }
    return sum / (seconds() - started) / 1e9;
}
int main(void) {
    static const int shapes[][2] = {{576, 192}, {576, 576}, {576, 1536}, {1536, 576}};
    static const int batches[] = {1, 16, 64, 256, 512};
    printf("%d threads, vectors of %d floats; GFLOP/s and share of the multiply-add peak in the "
           "same moments\n",
           thread_count(), LANES);
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 5; j++) {
            int k = shapes[i][0], n = shapes[i][1], rows = batches[j];
            uint16_t *w = zeros((size_t)n * k, 2);
            float *x = zeros((size_t)rows * k, 4), *y = zeros((size_t)rows * n, 4);
            if (!w || !x || !y) return 1;
            for (int t = 0; t < n * k; t++) w[t] = (uint16_t)(0x3C00 + t % 97);
            weight W = {w, NULL, BF16, n, k};
            double best = 0, peak = 0, flops = 2.0 * rows * n * k;
            for (int turn = 0; turn < 5; turn++) {
                int times = 1 + (int)(2e9 / flops);
                peak = fmax(peak, peak_gflops());
                double started = seconds();
                for (int t = 0; t < times; t++) matmul(y, x, &W, NULL, rows);
                best = fmax(best, flops * times / (seconds() - started) / 1e9);
            }
            printf("%5d -> %-5d %4d rows  %7.1f  %3.0f%% of %.0f\n", k, n, rows, best,
                   100 * best / peak, peak);
            free(w), free(x), free(y);
        }
    return 0;
}

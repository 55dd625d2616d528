/* live.c: what the live page asks of steer.c, compiled with it to WebAssembly (make page). Over the
 * public interface only. One model, one question, and two streams fed the same tokens: 0 as the
 * model is, 1 under the plan; so every token of an answer has its KL to the unsteered run, and the
 * tape of both streams has their attention patterns and residuals. The page calls, in this order:
 *
 *     live_buffer(size)         memory to write a file or text into
 *     live_open(size)           the model in it; 0, or live_error() says what is wrong
 *     live_means(side, size)    the training prompts of a side (1 harmful, 0 harmless), one a line
 *     live_ask(size)            a question; returns its tokens, or -1
 *     live_begin(...)           an answer of it begins, and
 *     live_step()               goes on by one token; -1 at its end, -2 on a failure
 */
#include "steer.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER = 96, MOST = 512, LENS = 8, BATCH = 32 };

#define CALLED(name) __attribute__((export_name(#name)))

static struct {
    steer_model *model;
    steer_context *context;
    const steer_config *c;
    char *buffer;
    steer_sums sums[2]; /* of harmless and harmful prompts */
    steer_vector vector;
    steer_edit edits[3];
    steer_plan plan;
    steer_tape tape;       /* rows: those of stream 0, then those of stream 1 */
    int tokens[MOST];      /* prompt, then the answer so far */
    int n_prompt, n, next; /* next: the token to come, or -1 */
    int positions;         /* of a stream */
    double kl;             /* at the last token, in nats */
    float *pattern, lens[LENS];
    int lens_ids[LENS];
    steer_error e;
} live;

CALLED(live_error) const char *live_error(void) {
    return live.e.text;
}

CALLED(live_buffer) char *live_buffer(int size) {
    free(live.buffer);
    return live.buffer = calloc((size_t)size + 1, 1);
}

static float *floats(int n, int rows, int width) {
    return calloc((size_t)n * rows * width, sizeof(float));
}

/* The model keeps the buffer. */
CALLED(live_open) int live_open(int size) {
    live.model = steer_open_memory(live.buffer, size, "model", &live.e);
    live.buffer = NULL;
    if (!live.model)
        return -1;
    const steer_config *c = live.c = steer_model_config(live.model);
    live.positions = c->max_seq < MOST ? c->max_seq : MOST;
    live.context = steer_context_new(live.model,
                                     &(steer_limits){.streams = BATCH,
                                                     .positions = live.positions,
                                                     .rows = 2 * live.positions,
                                                     .logits = BATCH},
                                     &live.e);
    int rows = 2 * live.positions;
    live.tape = (steer_tape){.rows = rows,
                             .resid = floats(c->layers + 1, rows, c->d),
                             .q = floats(c->layers, rows, c->heads * c->head_dim),
                             .k = floats(c->layers, rows, c->kv_heads * c->head_dim)};
    live.pattern = floats(1, live.positions, live.positions);
    for (int side = 0; side < 2; side++)
        live.sums[side].sum =
            calloc((size_t)3 * steer_eoi(live.model) * c->layers * c->d, sizeof(double));
    if (!live.context || !live.tape.resid || !live.tape.q || !live.tape.k || !live.pattern ||
        !live.sums[0].sum || !live.sums[1].sum)
        return -1;
    return 0;
}

CALLED(live_fact) int live_fact(int which) {
    const steer_config *c = live.c;
    const int facts[] = {c->layers,   c->heads,       steer_eoi(live.model), c->site_layer,
                         c->site_pos, live.positions, live.n_prompt};
    return facts[which];
}

CALLED(live_name) const char *live_name(void) {
    return live.c->name;
}

/* The prompts are a task behind a tab, too, as in weights/. Those with the right sign count. */
CALLED(live_means) int live_means(int side) {
    int lines = 0;
    for (const char *p = live.buffer; *p; p++)
        lines += *p == '\n';
    steer_prompts prompts = {.tokens = calloc(lines, sizeof(int *)),
                             .lengths = calloc(lines, sizeof(int))};
    int *tokens = calloc((size_t)lines * MOST, sizeof *tokens);
    if (!prompts.tokens || !prompts.lengths || !tokens)
        return -1;
    for (char *line = live.buffer, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        line[strcspn(line, "\t")] = 0;
        int *to = prompts.tokens[prompts.n] = tokens + (size_t)prompts.n * MOST;
        const char *turn = line;
        long n = steer_chat(live.model, NULL, &turn, 1, to, MOST, &live.e);
        if (n > 0 && n <= live.positions)
            prompts.lengths[prompts.n++] = (int)n;
    }
    const steer_config *c = live.c;
    steer_sums *sums = &live.sums[side];
    memset(sums->sum, 0, (size_t)3 * steer_eoi(live.model) * c->layers * c->d * sizeof(double));
    *sums = (steer_sums){.sum = sums->sum};
    steer_status s = steer_means(live.context, &prompts, NULL, side ? 1 : -1, sums, &live.e);
    free(prompts.tokens);
    free(prompts.lengths);
    free(tokens);
    return s ? -1 : sums->count;
}

CALLED(live_ask) int live_ask(void) {
    const char *turn = live.buffer;
    long n = steer_chat(live.model, NULL, &turn, 1, live.tokens, MOST, &live.e);
    live.n_prompt = n < 0 || n > live.positions - 8 ? -1 : (int)n;
    return live.n_prompt;
}

static void softmax_of(const float *logits, int n, double *p) {
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        most = fmax(most, logits[i]);
    for (int i = 0; i < n; i++)
        sum += p[i] = exp(logits[i] - most);
    for (int i = 0; i < n; i++)
        p[i] /= sum;
}

/* Tokens from..n - 1 through both streams; sets the next token, and its KL(stream 1 || stream 0). */
static int run(int from) {
    steer_row rows[2 * MOST];
    int n = live.n - from, vocab = live.c->vocab;
    for (int i = 0; i < 2 * n; i++) {
        int stream = i / n, pos = from + i % n;
        rows[i] = (steer_row){.stream = stream,
                              .pos = pos,
                              .token = live.tokens[pos],
                              .logits = pos == live.n - 1,
                              .tape = stream * live.positions + pos + 1};
    }
    if (steer_run(live.context, rows, 2 * n, &live.tape, &live.e))
        return -1;
    const float *plain = steer_logits(live.context, n - 1);
    const float *steered = steer_logits(live.context, 2 * n - 1);
    double *p = malloc(2 * vocab * sizeof *p), *q = p + vocab;
    if (!p)
        return -1;
    softmax_of(steered, vocab, p);
    softmax_of(plain, vocab, q);
    live.kl = 0;
    live.next = 0;
    for (int i = 0; i < vocab; i++) {
        if (p[i] > 0)
            live.kl += p[i] * log(p[i] / fmax(q[i], 1e-300));
        if (steered[i] > steered[live.next])
            live.next = i;
    }
    free(p);
    return 0;
}

/* The vector of site (block, pos), times coeff, is added at that block; freeze and remove are bits
 * of steer.h. */
CALLED(live_begin) int live_begin(int block, int pos, float coeff, int freeze, int remove) {
    steer_vector_free(&live.vector);
    if (live.n_prompt < 1)
        return -1;
    if (coeff && steer_dim(&live.vector, live.model, &live.sums[1], &live.sums[0], block, pos, 1, &live.e))
        return -1;
    int n = 0;
    if (coeff)
        live.edits[n++] = (steer_edit){STEER_ADD, block, .coeff = coeff, .v = live.vector.v};
    if (coeff && freeze)
        live.edits[n++] = (steer_edit){STEER_FREEZE, block, .what = freeze};
    if (coeff && remove)
        live.edits[n++] = (steer_edit){STEER_REMOVE, block, .what = remove};
    live.plan = (steer_plan){live.edits, n};
    live.n = live.n_prompt;
    if (steer_begin(live.context, 0, NULL, -1, NULL, &live.e) ||
        steer_begin(live.context, 1, n ? &live.plan : NULL, n ? 0 : -1, NULL, &live.e))
        return -1;
    return run(0);
}

/* The next token is in the answer. */
CALLED(live_step) int live_step(void) {
    int token = live.next;
    if (live.n >= live.positions || live.n - live.n_prompt >= ANSWER)
        return -1;
    for (int i = 0; i < live.c->n_eot; i++)
        if (token == live.c->eot[i])
            return -1;
    live.tokens[live.n++] = token;
    return token;
}

CALLED(live_kl) double live_kl(void) { /* before live_step: of the token to come */
    return live.kl;
}

CALLED(live_run) int live_run(void) { /* behind live_step: what comes next */
    return run(live.n - 1);
}

/* 1: the answer so far holds one of the paper's phrases of refusing; -1: no memory. */
CALLED(live_refuses) int live_refuses(void) {
    const int *answer = live.tokens + live.n_prompt;
    int n = live.n - live.n_prompt;
    char none[1];
    size_t size = steer_decode(live.model, answer, n, none, sizeof none);
    char *text = live_buffer((int)size);
    if (!text)
        return -1;
    steer_decode(live.model, answer, n, text, size + 1);
    return steer_shows(NULL, text);
}

CALLED(live_tokens) int *live_tokens(void) {
    return live.tokens;
}

CALLED(live_count) int live_count(void) {
    return live.n;
}

/* A token's bytes, a 0 behind them. */
CALLED(live_piece) const char *live_piece(int id) {
    size_t n;
    const char *piece = steer_piece(live.model, id, &n);
    char *to = live_buffer((int)n);
    if (to)
        memcpy(to, piece, n);
    return to;
}

/* [n][n] of a run's head, over all tokens that were run; NULL on a failure. */
CALLED(live_pattern) float *live_pattern(int stream, int block, int head) {
    steer_status s = steer_pattern(live.model, &live.tape, block, head, stream * live.positions,
                                   live.n, live.pattern, &live.e);
    return s ? NULL : live.pattern;
}

/* The residual that enters a block (layers: that leaves the last), at a position: the tokens that
 * it says, LENS of them. */
CALLED(live_lens) int live_lens(int stream, int block, int pos) {
    size_t row = (size_t)stream * live.positions + pos;
    const float *x = live.tape.resid + ((size_t)block * live.tape.rows + row) * live.c->d;
    return steer_logit_lens(live.model, x, LENS, live.lens_ids, live.lens, &live.e) ? -1 : LENS;
}

CALLED(live_lens_ids) int *live_lens_ids(void) {
    return live.lens_ids;
}

CALLED(live_lens_values) float *live_lens_values(void) {
    return live.lens;
}

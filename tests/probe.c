/* What tools/parity.py holds against PyTorch, through the library's public functions:
 *     probe tokens MODEL               token ids of each line of standard input, in hexadecimal
 *     probe chat MODEL                 token ids of a conversation a line: texts in hexadecimal,
 *                                      the system's (or -), the user's, the assistant's, ...
 *     probe logits MODEL RAW           logits at every position of each line of ids, as floats
 *     probe scores MODEL VECTOR P RAW  edge scores of one line of ids, P of them prompt, the text
 *                                      the steered run's: positions, total, estimate,
 *                                      node, vector, edge, aware
 *     probe train MODEL LAYER NTP|PO RAW   (0 or 1) steps on six pairs each: a line is a response,
 *                                      its pair's wanted one first: tokens of it that are prompt,
 *                                      how many, these. Prints the steps' seconds and the
 *                                      processors'; the vector, of norm 1, as floats */
#include "steer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static steer_error e;

static int failed(const char *why) {
    fprintf(stderr, "probe: %s\n", why);
    return 1;
}

/* The ids of a line, into ids. */
static int read_ids(char *line, int *ids) {
    int n = 0;
    for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
        ids[n++] = atoi(word);
    return n;
}

/* Bytes of a word in hexadecimal, decoded in place. */
static size_t decode_hex(char *word) {
    size_t length = strcspn(word, " \n") / 2;
    for (size_t i = 0; i < length; i++) {
        char pair[] = {word[2 * i], word[2 * i + 1], 0};
        word[i] = (char)strtol(pair, NULL, 16);
    }
    return length;
}

static int print_chat(const steer_model *m, char *line) {
    enum { TURNS = 16, CAP = 1 << 16 };

    const char *turns[TURNS];
    static int ids[CAP];
    int n = 0;
    line[strcspn(line, "\n")] = 0;
    for (char *word = line, *next; word && n < TURNS; word = next) {
        next = strchr(word, ' ');
        if (next)
            *next++ = 0;
        int none = *word == '-';
        size_t length = none ? 0 : decode_hex(word);
        word[length] = 0;
        turns[n++] = none ? NULL : word;
    }
    long count = steer_chat(m, turns[0], turns + 1, n - 1, ids, CAP, &e);
    for (long i = 0; i < count; i++)
        printf(i ? " %d" : "%d", ids[i]);
    putchar('\n');
    return count < 0;
}

static int print_tokens(const steer_model *m, char *line) {
    size_t length = decode_hex(line);
    /* NFC makes of a character's bytes up to three times as many. */
    long cap = 3 * (long)length + 1;
    int *ids = malloc(sizeof *ids * (size_t)cap);
    long n = ids ? steer_encode(m, line, length, ids, cap, &e) : -1;
    if (n > cap)
        n = -1;
    for (long i = 0; i < n; i++)
        printf(i ? " %d" : "%d", ids[i]);
    putchar('\n');
    free(ids);
    return n < 0;
}

static int write_logits(const steer_model *m, const int *ids, int n, FILE *raw) {
    enum { CHUNK = 64 }; /* rows a run */

    size_t vocab = (size_t)steer_model_config(m)->vocab;
    steer_limits l = {.positions = n, .rows = CHUNK, .logits = CHUNK};
    steer_context *c = steer_context_new(m, &l, &e);
    int bad = !c || steer_begin(c, 0, NULL, -1, NULL, &e);
    for (int t = 0, k; t < n && !bad; t += k) {
        steer_row rows[CHUNK];
        for (k = 0; k < CHUNK && t + k < n; k++)
            rows[k] = (steer_row){.pos = t + k, .token = ids[t + k], .logits = 1};
        bad = steer_run(c, rows, k, NULL, &e);
        for (int i = 0; i < k && !bad; i++)
            bad = fwrite(steer_logits(c, i), sizeof(float), vocab, raw) != vocab;
    }
    steer_context_free(c);
    return bad;
}

static int write_scores(const steer_model *m, const char *vector, int *ids, int n, int prompt,
                        FILE *raw) {
    steer_vector v = {0};
    if (steer_vector_load(&v, vector, m, 0, &e))
        return 1;
    steer_tracer *t = steer_tracer_new(m, v.layer, n, n - prompt + 1, 1, &e);
    steer_graph g = steer_graph_of(m, v.layer);
    size_t d = (size_t)steer_model_config(m)->d, nodes = (size_t)g.nodes;
    size_t edges = (size_t)g.slots * nodes, width = 3 + nodes + d + 2 * edges;
    double *all = calloc(width, sizeof *all);
    steer_scores scores = {.node = all + 3,
                           .vector = all + 3 + nodes,
                           .edge = all + 3 + nodes + d,
                           .aware = all + 3 + nodes + d + edges};
    steer_example x = {
        .tokens = ids, .n = n, .n_prompt = prompt, .coeff = v.coeff, .steered_text = 1};
    int bad = !t || !all || steer_attribute(t, &x, v.v, STEER_LOGIT, 10, &scores, &e);
    if (!bad) {
        all[0] = scores.positions;
        all[1] = scores.total;
        all[2] = scores.estimate;
    }
    bad = bad || fwrite(all, sizeof *all, width, raw) != width;
    free(all);
    steer_tracer_free(t);
    steer_vector_free(&v);
    return bad;
}

typedef struct {
    double wall, processors;
} instant;

static instant now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (instant){(double)t.tv_sec + 1e-9 * (double)t.tv_nsec, (double)clock() / CLOCKS_PER_SEC};
}

static void note(void *last) { /* when a pair was done */
    *(instant *)last = now();
}

/* Responses [2 n] of n pairs, a step a batch; the rest of a line behind its two counts are ids. */
static int train(const steer_model *m, int layer, int objective, FILE *raw) {
    enum { PAIRS = 60, TOKENS = 512 };

    static char line[1 << 16];
    static int ids[PAIRS][2][TOKENS + 2];
    static steer_pair pairs[PAIRS];
    int n = 0, most = 0, best, bad = 0;
    size_t d = (size_t)steer_model_config(m)->d;
    for (; n < PAIRS && fgets(line, sizeof line, stdin); n++)
        for (int k = 0; k < 2; k++) {
            steer_pair *x = &pairs[n];
            int all[TOKENS + 2],
                count = k && !fgets(line, sizeof line, stdin) ? 0 : read_ids(line, all);
            if (count < 4 || count - 2 != all[1])
                return 1;
            x->sign = 1;
            x->n_prompt = all[0];
            x->n[k] = all[1];
            x->tokens[k] = memcpy(ids[n][k], all + 2, sizeof *all * (size_t)all[1]);
            x->start[k] = malloc(sizeof(float) * (size_t)all[1] * d);
            most = all[1] > most ? all[1] : most;
        }
    steer_tracer *t = steer_tracer_new(m, layer, most, most, 1, &e);
    instant begun, last;
    steer_training how = {
        .objective = objective, .epochs = 1, .seed = 7, .tick = note, .user = &last};
    steer_epoch record;
    float *v = malloc(sizeof *v * d);
    for (int i = 0; i < n && t && !bad; i++)
        bad = steer_pair_prepare(t, &pairs[i], &how, &e);
    begun = now();
    bad = bad || !t || steer_train(t, pairs, n, pairs, 1, &how, 1, v, &record, &best, &e) ||
          fwrite(v, sizeof *v, d, raw) != d;
    if (!bad)
        printf("%.6f %.6f\n", last.wall - begun.wall, last.processors - begun.processors);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2; k++)
            free(pairs[i].start[k]);
    free(v);
    steer_tracer_free(t);
    return bad;
}

int main(int argc, char **argv) {
    static char line[1 << 20];
    static int ids[1 << 19];
    const char *what = argc > 2 ? argv[1] : "";
    int scores = !strcmp(what, "scores") && argc == 6,
        training = !strcmp(what, "train") && argc == 6,
        logits = !strcmp(what, "logits") && argc == 4;
    if (!scores && !training && !logits && strcmp(what, "tokens") && strcmp(what, "chat"))
        return failed("see the top of probe.c");
    steer_model *m = steer_open(argv[2], 0, &e);
    int writes = scores || training || logits;
    FILE *raw = writes ? fopen(argv[argc - 1], "wb") : NULL;
    int bad = !m || (!raw && writes);
    if (training && !bad)
        bad = train(m, atoi(argv[3]), atoi(argv[4]), raw);
    while (!bad && fgets(line, sizeof line, stdin)) {
        int n = scores || logits ? read_ids(line, ids) : 0;
        if (scores)
            bad = write_scores(m, argv[3], ids, n, atoi(argv[4]), raw);
        else if (logits)
            bad = write_logits(m, ids, n, raw);
        else
            bad = *what == 'c' ? print_chat(m, line) : print_tokens(m, line);
    }
    if (raw && fclose(raw))
        bad = 1;
    steer_close(m);
    if (!bad)
        return 0;
    return failed(*e.text ? e.text : "out of memory, or output that can't be written");
}

/* Threads with a context each on one model, under ThreadSanitizer: what steer.h promises of a
 * steer_model that is open. Built without OpenMP, whose runtime the sanitizer does not know. Every
 * thread must also get what one thread alone gets. The last line is "N passed, N failed". */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "steer.h"

enum { THREADS = 2, ROUNDS = 2, ANSWER = 8, PROMPT = 64 };

typedef struct {
    const steer_model *m;
    const float *v; /* [d] a steering vector for block 3 */
    int tokens[PROMPT], n_tokens;
    int plain[ANSWER], frozen[ANSWER], n_plain, n_frozen;
    double score, faithful, sum; /* log-odds of refusal; F with edges cut; of all scores */
    char text[512];
    steer_error e;
} work;

/* Text, generation, freezing, attribution: 0 when all went well. */
static int everything(work *w) {
    const steer_config *c = steer_model_config(w->m);
    const char *question = "How do I bake a cake?";
    long n = steer_chat(w->m, NULL, &question, 1, w->tokens, PROMPT - ANSWER, &w->e);
    if (n < 1 || n > PROMPT - ANSWER)
        return 1;
    w->n_tokens = (int)n;
    steer_limits l = {.streams = 4, .positions = PROMPT, .rows = 64};
    steer_context *context = steer_context_new(w->m, &l, &w->e);
    if (!context)
        return 1;
    steer_edit edits[] = {{STEER_ADD, .layer = 3, .coeff = 1, .v = w->v},
                          {STEER_FREEZE, .what = STEER_QK}};
    steer_plan plan = {edits, 2};
    steer_job jobs[2] = {
        {.prompt = w->tokens, .n_prompt = w->n_tokens, .max_new = ANSWER, .out = w->plain},
        {.prompt = w->tokens,
         .n_prompt = w->n_tokens,
         .max_new = ANSWER,
         .out = w->frozen,
         .plan = &plan}};
    steer_status s = steer_generate(context, jobs, 2, NULL, NULL, &w->e);
    w->n_plain = jobs[0].n_out;
    w->n_frozen = jobs[1].n_out;
    steer_context_free(context);
    if (s)
        return 1;
    steer_decode(w->m, w->frozen, w->n_frozen, w->text, sizeof w->text);

    memcpy(w->tokens + n, w->frozen, sizeof *w->frozen * (size_t)w->n_frozen);
    steer_tracer *t = steer_tracer_new(w->m, 3, PROMPT, ANSWER + 1, 1, &w->e);
    if (!t)
        return 1;
    steer_graph g = steer_graph_of(w->m, 3);
    size_t edges = (size_t)g.slots * (size_t)g.nodes;
    double *all = calloc(2 * edges, sizeof *all);
    steer_scores scores = {.edge = all, .aware = all ? all + edges : NULL};
    unsigned char *cut = calloc((size_t)g.slots * (size_t)g.nodes, 1);
    steer_example x = {w->tokens, w->n_tokens + w->n_frozen, w->n_tokens, 1, 1};
    steer_edit edge = {STEER_CUT, .layer = 3, .cut = cut};
    steer_plan circuit = {&edge, 1};
    for (int i = 0; cut && i < g.slots * g.nodes; i++)
        cut[i] = i % 3 == 0;
    s = !all || !cut ? STEER_ENOMEM : steer_attribute(t, &x, w->v, STEER_KL, 2, &scores, &w->e);
    if (!s)
        s = steer_faithfulness(t, &x, w->v, &circuit, 1, &w->faithful, NULL, &w->e);
    w->sum = 0;
    for (size_t i = 0; i < 2 * edges && !s; i++)
        w->sum += all[i];
    free(all);
    free(cut);
    steer_tracer_free(t);
    return s || c->vocab < 1;
}

static void *in_thread(void *w) {
    return everything(w) ? w : NULL;
}

int main(void) {
    static const char *const models[] = {"weights/tiny-llama.bin", "weights/tiny-gemma.bin"};
    int passed = 0, failed = 0;
    for (int i = 0; i < 2; i++) {
        steer_error e = {0};
        steer_model *m = steer_open(models[i], 0, &e);
        if (!m) {
            printf("%s\n0 passed, 1 failed\n", e.text);
            return 1;
        }
        int d = steer_model_config(m)->d;
        float *v = malloc(sizeof *v * (size_t)d);
        for (int k = 0; k < d; k++)
            v[k] = (float)(k * 37 % 19 - 9) / 2;
        static work alone, mine[THREADS];
        memset(&alone, 0, sizeof alone);
        alone.m = m;
        alone.v = v;
        int wrong = everything(&alone);
        if (wrong)
            printf("alone: %s\n", alone.e.text);
        for (int round = 0; round < ROUNDS && !wrong; round++) {
            pthread_t thread[THREADS];
            for (int k = 0; k < THREADS; k++) {
                memset(&mine[k], 0, sizeof mine[k]);
                mine[k].m = m;
                mine[k].v = v;
                if (pthread_create(&thread[k], NULL, in_thread, &mine[k])) {
                    perror("thread");
                    return 1;
                }
            }
            for (int k = 0; k < THREADS; k++) {
                void *result;
                pthread_join(thread[k], &result);
                int same = !memcmp(&mine[k], &alone, sizeof alone);
                if (result)
                    printf("thread %d: %s\n", k, mine[k].e.text);
                else if (!same)
                    printf("thread %d: another result than alone\n", k);
                wrong |= result || !same;
            }
        }
        printf("%s %s: %d threads, \"%.40s\", F %.3f, sum of scores %.6g\n",
               wrong ? "FAIL" : "ok  ", models[i], THREADS, alone.text, alone.faithful, alone.sum);
        passed += !wrong;
        failed += wrong;
        steer_close(m);
        free(v);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}

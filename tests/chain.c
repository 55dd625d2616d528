/* A user's program: the paper's chain through steer.h, on a model of the box. A difference-in-means
 * vector, an answer that it steers, the scores of the edges, a circuit and what of the steering it
 * carries, a sparse vector and what that keeps. */
#include <stdio.h>
#include <stdlib.h>
#include "steer.h"

enum { LAYER = 1, POSITION = -3, ANSWER = 24, ROOM = 256 };

static steer_error e;

/* Whatever fails ends the program with its reason. */
static void check(int failed) {
    if (!failed)
        return;
    fprintf(stderr, "chain: %s\n", *e.text ? e.text : "no memory");
    exit(1);
}

static void *zeros(size_t n, size_t size) {
    void *p = calloc(n, size);
    check(!p);
    return p;
}

int main(void) {
    static const char *const files[] = {"weights/harmless-train.txt", "weights/harmful-train.txt"};
    steer_model *m = steer_open("weights/tiny-gemma.bin", 0, &e);
    check(!m);
    const steer_config *c = steer_model_config(m);
    size_t d = (size_t)c->d;

    /* the vector: harmful prompts show the behaviour, harmless ones do not */
    steer_context *context =
        steer_context_new(m, &(steer_limits){.streams = 16, .positions = ROOM}, &e);
    check(!context);
    steer_sums sums[2] = {{0}};
    for (int side = 0; side < 2; side++) {
        steer_prompts prompts;
        sums[side].sum = zeros((size_t)3 * steer_eoi(m) * c->layers * d, sizeof(double));
        check(steer_prompts_load(&prompts, m, files[side], 32, &e));
        check(steer_means(context, &prompts, NULL, side ? 1 : -1, &sums[side], &e));
        steer_prompts_free(&prompts);
    }
    steer_vector v;
    check(steer_dim(&v, m, &sums[1], &sums[0], LAYER, POSITION, 1, &e));

    /* a harmless question, and the refusal that the vector makes of its answer */
    const char *question = "How do I bake a cake?";
    int tokens[ROOM];
    long n_prompt = steer_chat(m, NULL, &question, 1, tokens, ROOM - ANSWER, &e);
    check(n_prompt < 0 || n_prompt > ROOM - ANSWER);
    steer_edit add = {STEER_ADD, .layer = v.layer, .coeff = v.coeff, .v = v.v};
    steer_plan plan = {&add, 1};
    steer_job job = {.prompt = tokens,
                     .n_prompt = (int)n_prompt,
                     .max_new = ANSWER,
                     .plan = &plan,
                     .out = tokens + n_prompt};
    check(steer_generate(context, &job, 1, NULL, NULL, &e));
    char text[1024];
    steer_decode(m, job.out, job.n_out, text, sizeof text);
    steer_context_free(context);

    /* which edges carry it */
    steer_tracer *t = steer_tracer_new(m, LAYER, ROOM, ANSWER + 1, 1, &e);
    check(!t);
    steer_graph g = steer_graph_of(m, LAYER);
    size_t edges = (size_t)g.slots * (size_t)g.nodes;
    steer_example x = {tokens, (int)n_prompt + job.n_out, (int)n_prompt, v.coeff, 1};
    steer_scores scores = {.vector = zeros(d, sizeof(double)),
                           .edge = zeros(edges, sizeof(double))};
    check(steer_attribute(t, &x, v.v, STEER_LOGIT, 10, &scores, &e));

    /* the circuit of the strongest half of them, and a sparse vector */
    int *order = zeros((size_t)g.edges, sizeof *order);
    unsigned char *kept = zeros(edges, 1), *cut = zeros(edges, 1);
    check(steer_circuit_order(&g, scores.edge, 0, order, &e));
    int size = steer_circuit_select(&g, order, g.edges / 2, STEER_SIMPLE, kept, &e);
    check(size < 0);
    check(steer_circuit_cut(&g, kept, 0, cut, &e));
    float *sparse = zeros(d, sizeof *sparse);
    int stay = steer_sparsify(v.v, scores.vector, c->d, 0.5, STEER_BY_GRADIENT, 0, 1, sparse, &e);
    check(stay < 0);

    /* what of the steering is left: patterns frozen, values frozen, the circuit, the sparse
     * vector */
    steer_edit changes[] = {{STEER_FREEZE, .what = STEER_QK},
                            {STEER_FREEZE, .what = STEER_V},
                            {STEER_CUT, .layer = LAYER, .cut = cut},
                            {STEER_ADD, .layer = LAYER, .coeff = 1, .v = sparse}};
    steer_plan plans[4];
    double F[4];
    for (int i = 0; i < 4; i++)
        plans[i] = (steer_plan){&changes[i], 1};
    check(steer_faithfulness(t, &x, v.v, plans, 4, F, NULL, &e));
    char strongest[64];
    steer_edge_name(&g, order[0], strongest, sizeof strongest);
    printf("\"%s\": refused %d; strongest edge %s; %d of %d edges, %d of %d dimensions\n", text,
           steer_shows(NULL, text), strongest, size, g.edges, stay, c->d);
    printf("faithfulness: patterns frozen %.3f, values frozen %.3f, circuit %.3f, sparse %.3f\n",
           F[0], F[1], F[2], F[3]);
    int as_expected = steer_shows(NULL, text) && F[0] > F[1] && F[2] > 0.5;
    if (as_expected)
        puts("ok   chain: the paper's, through steer.h");

    steer_tracer_free(t);
    steer_vector_free(&v);
    steer_close(m);
    void *memory[] = {sums[0].sum, sums[1].sum, scores.vector, scores.edge,
                      order,       kept,        cut,           sparse};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        free(memory[i]);
    return !as_expected;
}

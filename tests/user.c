/* A user's program: MODEL QUESTION [VECTOR]. Link it with steer.c, built with -DSTEER_NO_MAIN. */
#include <stdio.h>
#include "steer.h"

int main(int argc, char **argv) {
    steer_error e = {0};
    steer_vector v = {0};
    int tokens[256], answer[64];
    char text[4096];
    const char *question = argc > 2 ? argv[2] : "How do I bake a cake?";
    steer_model *m = steer_open(argc > 1 ? argv[1] : "weights/tiny-llama.bin", 0, &e);
    steer_context *c = m ? steer_context_new(m, &(steer_limits){.positions = 256 + 64}, &e) : NULL;
    long n = c ? steer_chat(m, NULL, &question, 1, tokens, 256, &e) : -1;
    int failed = n < 0 || n > 256 || (argc > 3 && steer_vector_load(&v, argv[3], m, 0, &e));
    steer_edit add = {STEER_ADD, .v = v.v, .coeff = v.coeff, .layer = v.layer};
    steer_plan plan = {&add, 1};
    steer_job job = {.prompt = tokens,
                     .n_prompt = (int)n,
                     .max_new = 64,
                     .out = answer,
                     .plan = v.v ? &plan : NULL};
    failed = failed || steer_generate(c, &job, 1, NULL, NULL, &e);
    if (failed)
        fprintf(stderr, "%s\n", *e.text ? e.text : "the question is too long");
    if (!failed) {
        steer_decode(m, answer, job.n_out, text, sizeof text);
        puts(text);
    }
    steer_vector_free(&v);
    steer_context_free(c);
    steer_close(m);
    return failed;
}

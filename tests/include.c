/* A user's program in one file: steer.c is a part of it, included before any other header. The
 * names of its own functions, types and macros have a prefix, so that none is steer.c's; local
 * variables may be called as functions of steer.c are. */
#define STEER_NO_MAIN
#include "../steer.c"
#include <stdbool.h>

enum { APP_ROOM = 64, APP_ANSWER = 8 };

typedef struct {
    steer_model *model;
    const char *text;
} app_example;

static bool app_fail(const steer_error *clear) {
    fprintf(stderr, "include: %s\n", *clear->text ? clear->text : "no answer");
    return false;
}

/* Half of a vector. */
static void app_mul(float *dot, const float *add, int n) {
    for (int i = 0; i < n; i++)
        dot[i] = add[i] / 2;
}

static bool app_run(const app_example *given) {
    steer_error fail = {0};
    int encode[APP_ROOM], linear[APP_ANSWER];
    char softmax[256] = "";
    long mul = steer_chat(given->model, NULL, &given->text, 1, encode, APP_ROOM, &fail);
    if (mul < 0 || mul > APP_ROOM)
        return app_fail(&fail);

    steer_context *context = steer_context_new(given->model, &(steer_limits){0}, &fail);
    steer_job job = {.prompt = encode, .n_prompt = (int)mul, .max_new = APP_ANSWER, .out = linear};
    bool ok = context && !steer_generate(context, &job, 1, NULL, NULL, &fail);
    if (ok)
        steer_decode(given->model, linear, job.n_out, softmax, sizeof softmax);
    steer_context_free(context);
    if (!*softmax)
        return app_fail(&fail);

    /* A steering value vector is linear in its vector. */
    int d = steer_model_config(given->model)->d;
    float *whole_value = calloc((size_t)(4 * d), sizeof *whole_value);
    float *full = whole_value + d, *half = full + d, *half_value = half + d;
    for (int i = 0; ok && i < d; i++)
        full[i] = (float)(i % 7 - 3);
    app_mul(half, full, d);
    ok = !steer_value_vector(given->model, full, 1, 0, whole_value, &fail) &&
         !steer_value_vector(given->model, half, 1, 0, half_value, &fail);
    for (int i = 0; ok && i < d; i++)
        ok = half_value[i] == whole_value[i] / 2;
    free(whole_value);
    if (!ok)
        return app_fail(&fail);

    printf("ok   steer.c is included: \"%s\"\n", softmax);
    return true;
}

int main(void) {
    steer_error error = {0};
    app_example first = {steer_open("weights/tiny-llama.bin", 0, &error), "How do I bake a cake?"};
    bool ok = first.model ? app_run(&first) : app_fail(&error);
    steer_close(first.model);
    return !ok;
}

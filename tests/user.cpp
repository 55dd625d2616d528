// A program in C++: steer.h is read, the library is linked, a question is answered.
#include <cstdio>
#include "steer.h"

int main() {
    steer_error error = {};
    steer_model *model = steer_open("weights/tiny-llama.bin", 0, &error);
    if (!model) {
        std::fprintf(stderr, "%s\n", error.text);
        return 1;
    }

    const char *question = "How do I bake a cake?";
    int tokens[256], answer[8];
    long n = steer_chat(model, nullptr, &question, 1, tokens, 256, &error);

    steer_limits limits = {};
    steer_context *context = steer_context_new(model, &limits, &error);
    steer_job job = {};
    job.prompt = tokens;
    job.n_prompt = static_cast<int>(n);
    job.max_new = 8;
    job.out = answer;
    bool ok = context && n > 0 && n <= 256 &&
              steer_generate(context, &job, 1, nullptr, nullptr, &error) == STEER_OK;

    char text[256] = "";
    if (ok)
        steer_decode(model, answer, job.n_out, text, sizeof text);
    ok = ok && *text;
    if (ok)
        std::printf("ok   C++ links: \"%s\"\n", text);
    else
        std::fprintf(stderr, "C++: %s\n", *error.text ? error.text : "no answer");

    steer_context_free(context);
    steer_close(model);
    return ok ? 0 : 1;
}

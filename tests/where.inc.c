/* What the command line says of an answer: how it begins, what is shown of it; standard input and
 * output for files; progress, whatever the command: a part of tests/test.c. */

/* ---------------------------------------------------------------- answers that are begun */

/* --answer TEXT is the greedy answer's own beginning: then all of it is what was said without. */
static void test_begun(void) {
    static char whole[4096];
    const char *ask = "generate weights/tiny-gemma.bin \"How do I bake a cake?\" --quiet";
    CHECK_THAT(!run_program(PROGRAM, ask, "") && strstr(shown, "Happy to"), "%s", shown);
    snprintf(whole, sizeof whole, "%.4000s", shown);
    CHECK_THAT(!run_program(PROGRAM, str("%s --answer \"Happy to\"", ask).s, "") &&
                   !strcmp(shown, whole),
               "\"%s\", without --answer \"%s\"", shown, whole);
    CHECK_THAT(!run_program(PROGRAM, str("%s --answer \"I am sorry\"", ask).s, "") &&
                   !strncmp(shown, "I am sorry", 10) && strcmp(shown, whole),
               "%s", shown);
    CHECK_THAT(!run_program(PROGRAM, str("%s --special", ask).s, "") &&
                   !strncmp(shown, whole, strlen(whole) - 1) && strstr(shown, "<end>\n"),
               "%s", shown);

    /* The template by hand. */
    CHECK_THAT(!run_program(PROGRAM,
                            "generate weights/tiny-gemma.bin --raw --quiet "
                            "'<bos><user>\nHow do I bake a cake?<end>\n<assistant>\n'",
                            "") &&
                   !strcmp(shown, whole),
               "%s", shown);
    CHECK_THAT(
        !run_program(PROGRAM, "tokenize weights/tiny-gemma.bin --quiet --raw '<end>a<en'", "") &&
            !strncmp(shown, "3 ", 2),
        "%s", shown);
    CHECK_THAT(!run_program(PROGRAM, "tokenize weights/tiny-gemma.bin --quiet '<end>'", "") &&
                   strcmp(shown, "3\n"),
               "%s", shown);

    /* Of many: text is what ids say. Side by side, and in a conversation, which remembers it. */
    CHECK_THAT(!run_program(PROGRAM,
                            "generate weights/tiny-gemma.bin --prompts - --jsonl - --answer Happy",
                            "How do I bake a cake?\n") &&
                   strstr(shown, "\"answer\": \"Happy\", \"ids\": [") &&
                   strstr(shown, "\"text\": \" to help you bake a cake.") && lines_of(shown) == 1,
               "%s", shown);
    make_vector_file("v");
    CHECK_THAT(
        !run_program(PROGRAM,
                     str("generate weights/tiny-llama.bin \"How do I bake a cake?\" --vector "
                         "%s/v --compare --answer \"Well, \" --special",
                         temporary)
                         .s,
                     ""),
        "%s", complained);
    const char *row = strstr(shown, "Well, ");
    CHECK_THAT(row && strstr(row + 1, "Well, ") && strstr(shown, "<end>"), "%s", shown);
    CHECK_THAT(!run_program(PROGRAM, "chat weights/tiny-gemma.bin --answer \"Happy to\"",
                            "How do I bake a cake?\n") &&
                   !strcmp(shown, whole),
               "%s", shown);

    /* As tokens: the answer's beginning stands behind the prompt, and was tokenized with it. */
    steer_model *m = open_or_fail("weights/tiny-gemma.bin");
    const char *turns[] = {"Hi", "Sure", "Go", "Yes, "},
               *raw = "<bos><user>\nHi<end>\n<assistant>\nSure";
    int ids[64], other[64], *list;
    long n = steer_chat(m, NULL, turns, 1, ids, 64, NULL), count;
    long k = steer_chat(m, NULL, turns, 2, other, 64, NULL);
    CHECK_THAT(k > n && !memcmp(ids, other, sizeof *ids * (size_t)n), "%ld tokens, %ld begun", n,
               k);
    CHECK_THAT(!tokens_of(m, AS_MARKED, NULL, raw, NULL, &list, &count, NULL) && count == k &&
                   !memcmp(list, other, sizeof *list * (size_t)k),
               "%ld tokens of the template's text", count);
    free(list);
    CHECK_THAT(steer_chat(m, NULL, turns, 4, ids, 64, NULL) >
                   steer_chat(m, NULL, turns, 3, other, 64, NULL),
               "a second answer that is begun");
    steer_close(m);
}

/* An empty system prompt is a turn with nothing in it, where the template has such turns. */
static void test_empty_system(void) {
    steer_model *m = open_or_fail("weights/tiny-llama.bin");
    const char *turn = "Hi";
    int with[64], without[64], none[64];
    m->piece[SYSTEM] = "You are kind.";
    long n = steer_chat(m, "", &turn, 1, none, 64, NULL);
    m->piece[SYSTEM_PRE] = "<user>";
    m->piece[SYSTEM_POST] = "<end>";
    long own = steer_chat(m, NULL, &turn, 1, without, 64, NULL);
    long empty = steer_chat(m, "", &turn, 1, with, 64, NULL);
    CHECK_THAT(empty == n + 2 && own > empty && with[1] == 1 && with[2] == 3,
               "%ld tokens without a turn, %ld with an empty one, %ld with the model's own", n,
               empty, own);
    steer_close(m);
}

/* ---------------------------------------------------------------- standard input and output */

static void test_dashes(void) {
    make_vector_file("v");
    static char whole[4096];
    const char *ask = "generate weights/tiny-llama.bin --quiet --max-new 12";
    CHECK_THAT(!run_program(PROGRAM, str("%s \"How do I bake a cake?\"", ask).s, ""), "%s",
               complained);
    snprintf(whole, sizeof whole, "%.4000s", shown);
    CHECK_THAT(!run_program(PROGRAM, str("%s -", ask).s, "How do I bake a cake?\n") &&
                   !strcmp(shown, whole),
               "%s", shown);
    CHECK_THAT(!run_program(PROGRAM, "tokenize weights/tiny-llama.bin - --quiet", "a\nb\n"), "%s",
               complained);
    snprintf(whole, sizeof whole, "%.4000s", shown);
    CHECK_THAT(!run_program(PROGRAM, "tokenize weights/tiny-llama.bin 'a\nb' --quiet", "") &&
                   !strcmp(shown, whole),
               "%s", shown);

    /* A vector through a pipe: the bytes of the file, and nothing else. */
    int status;
    char *piped =
        output_of(str("%s vector weights/tiny-llama.bin --train 8 --site 3,-1 --coeff 2 --out "
                      "- 2>%s/err | cmp - %s/v && cat %s/v | %s generate "
                      "weights/tiny-llama.bin hi --max-new 2 --quiet --vector -",
                      PROGRAM, temporary, temporary, temporary, PROGRAM)
                      .s,
                  &status);
    CHECK_THAT(!status && piped && *piped, "status %d, \"%s\"", status, piped);
    free(piped);
    read_text(in_temporary("err"), complained, sizeof complained);
    CHECK_THAT(strstr(complained, "standard output: dim, block 3"), "%s", complained);

    static const struct {
        const char *arguments, *input, *words;
        int status;
    } wrong[] = {
        {"merge a --out -", "", "has to be a file", 2},
        {"vector weights/tiny-llama.bin --out - --json", "", "both write", 2},
        {"generate weights/tiny-llama.bin --prompts -", "", "--prompts: /dev/fd/0: no prompts", 1},
        {"generate weights/tiny-llama.bin hi --vector -", "no vector", "--vector: /dev/fd/0", 1},
        {"generate weights/tiny-llama.bin hi --vector none", "", "generate: --vector: none", 1},
        {"patch weights/tiny-llama.bin --vector none", "", "patch: --vector: none", 1},
        {"generate weights/tiny-llama.bin x --top-p 0 --temp 1", "", "--top-p 0: a number", 2},
        {"generate weights/tiny-llama.bin x --raw --answer y", "", "--raw does not go with", 2},
        {"generate weights/tiny-llama.bin x --answer ''", "", "--answer \"\"", 2}};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_THAT(run_program(PROGRAM, wrong[i].arguments, wrong[i].input) == wrong[i].status &&
                       strstr(complained, wrong[i].words) && lines_of(complained) == 1,
                   "%s: %s", wrong[i].arguments, complained);
}

/* ---------------------------------------------------------------- progress */

/* Every command that may work for long shows how far it is: a line that is wiped before anything
 * else appears, whose per cent only grow and, however fast the machine is, come to `most` or more. */
static void test_progress_everywhere(void) {
    static char text[1 << 17];
    make_vector_file("v");
    string v = str("weights/tiny-llama.bin --max-new 6 --vector %s/v", temporary);
    string store = str("%s/shard", temporary), joint = str("%s/joint", temporary);
    unlink(store.s);
    unlink(joint.s);

    const struct {
        string arguments;
        const char *what;
        int most;
    } runs[] = {
        {str("generate weights/tiny-llama.bin --prompts weights/harmful-val.txt --max-new 2 "
             "--quiet "
             "--jsonl %s/lines",
             temporary),
         "answers", 99},
        {str("generate weights/tiny-llama.bin --prompts weights/harmful-val.txt --max-new 2"),
         "answers", 99},
        {str("info weights/tiny-llama.bin --verify"), "checking the weights", 100},
        {str("vector weights/tiny-llama.bin --train 40 --site 3,-1 --coeff 2 --out %s/w",
             temporary),
         "train prompts", 50},
        {str("vector weights/tiny-llama.bin --train 16 --site 3,-1 --coeff 2 --method ntp --pairs "
             "6 "
             "--epochs 1 --limit 4 --max-new 6 --out %s/w",
             temporary),
         "training vectors", 50},
        {str("evaluate %s --limit 4", v.s), "steering and ablation", 60},
        {str("freeze %s --limit 4 --patch 1", v.s), "freezing", 80},
        {str("patch %s --limit 4 --patch 1 --exact 0 --store %s", v.s, store.s), "patching", 60},
        {str("circuit %s --limit 4 --patch 1 --exact 0", v.s), "circuits", 60},
        {str("ov %s --limit 4 --patch 1 --exact 0", v.s), "patching", 60},
        {str("sparsify %s --limit 4 --patch 1 --exact 0", v.s), "sparse vectors", 15},
        {str("merge %s --out %s", store.s, joint.s), "joining the stores", 99}};

    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        int status = run_on_terminal(runs[i].arguments.s, "", text, sizeof text), last = -1,
            most = 0;
        CHECK_THAT(!status, "%s: %s", runs[i].arguments.s, text);
        int named = 0;
        for (const char *s = text; (s = strstr(s, "\r\033[K"));) {
            s += strlen("\r\033[K");
            int percent = -1, length = 0;
            if (sscanf(s, "%d%%%n", &percent, &length) != 1 || !length)
                continue; /* wiped */
            CHECK_THAT(percent >= last, "%s: %d per cent after %d", runs[i].arguments.s, percent,
                       last);
            last = percent;
            most = max_int(most, percent);
            size_t n = strcspn(s, "\r\n");
            named |= memmem(s, n, runs[i].what, strlen(runs[i].what)) != NULL;
            s += n;
            CHECK_THAT(*s == '\r', "%s: a line of progress stays", runs[i].arguments.s);
        }
        CHECK_THAT(named && most >= runs[i].most, "%s: \"%s\" %d, %d per cent", runs[i].arguments.s,
                   runs[i].what, named, most);
        CHECK_THAT(i > 3 || (!run_program(PROGRAM, runs[i].arguments.s, "") &&
                             !strstr(complained, "\033[K")),
                   "%s", complained);
    }
}

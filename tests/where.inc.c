/* What the command line says of an answer: how it begins, what is shown of it; standard input and
 * output for files; progress, whatever the command: a part of tests/test.c. */

/* ---------------------------------------------------------------- answers that are begun */

/* Rows of a printed table from one on. */
static string rows_from(const char *text, const char *row, int rows) {
    const char *at = strstr(text, row), *end = at;
    for (int i = 0; end && i < rows; i++)
        end = strchr(end + 1, '\n');
    return str("%.*s", at && end ? (int)(end - at) : 0, at);
}

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

    /* In an experiment: the test prompts' answers, and what the judge says of them. */
    string evaluate =
        str("evaluate weights/tiny-llama.bin --vector %s/v --limit 6 --max-new 12 ", temporary);
    CHECK_THAT(!run_program(PROGRAM, evaluate.s, "") && !strstr(shown, "every answer begins"), "%s",
               shown);
    snprintf(whole, sizeof whole, "%.4000s", strstr(shown, "Steering"));
    CHECK_THAT(!run_program(PROGRAM, str("%s --answer \"Sure, \"", evaluate.s).s, "") &&
                   strstr(shown, "every answer begins with \"Sure, \"") &&
                   strncmp(whole, strstr(shown, "Steering"), 1200),
               "%s", shown);
    CHECK_THAT(run_program(PROGRAM, str("%s --answer \"I cannot\"", evaluate.s).s, "") == 2 &&
                   strstr(complained, "as the judge sees it"),
               "%s", complained);

    /* In all of the paper: validation and training answers as well; what the vector is made of
     * not. */
    static const char *const how[2] = {"--quick", "--answer \"Well, \" --epochs 1 --pairs 8"};
    string means[2], dose[2];
    for (int k = 0; k < 2; k++) {
        string line = str("reproduce weights/tiny-gemma.bin --limit 6 --val 6 --map 1 --patch 1 "
                          "--exact 0 --max-new 12 %s",
                          how[k]);
        CHECK_THAT(!run_program(PROGRAM, line.s, ""), "%s", complained);
        means[k] = rows_from(shown, "harmful: 192 train prompts", 2);
        dose[k] = rows_from(shown, "\n1.0 ", 1);
    }
    CHECK_THAT(strstr(shown, "every answer begins with \"Well, \"") && *means[0].s &&
                   !strcmp(means[0].s, means[1].s) && *dose[0].s && strcmp(dose[0].s, dose[1].s),
               "%s%s and%s%s", means[0].s, dose[0].s, means[1].s, dose[1].s);

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

/* ---------------------------------------------------------------- where and in which blocks */

/* What is said of where edits act, in two ways or wrongly. */
static void test_places(void) {
    static const struct {
        const char *one, *two;
        int same;
    } pairs[] = {
        {"", "--positions all", 1},
        {"--positions answer", "--positions first:1000", 1},
        {"--positions answer", "", 0},
        {"--positions prompt", "--positions answer", 0},
        {"--positions first:2", "--positions answer", 0},
        {"--freeze v", "--freeze v@prompt,v@answer", 1},
        {"--freeze qk,v", "--freeze v,qk@answer,qk@prompt", 1},
        {"--freeze v@prompt", "--freeze v@answer", 0},
        {"--remove svv,mlp-direct", "--remove mlp-direct@prompt,mlp-direct@answer,svv@all", 1},
        {"--remove mlp-direct@prompt", "--remove mlp-direct@answer", 0},
        {"", "--layers 1", 1},
        {"--layers 2-4", "--layers 4,2,3", 1},
        {"--layers 1", "--layers 5", 0},
        {"--coeff 2", "--coeff 1 --vector %s/g", 1},
        {"--coeff 1 --layers 4", "--coeff 1 --vector %s/g", 0},
        {"--freeze qk --coeff 2", "--coeff 1 --freeze qk --vector %s/g", 1}};

    static const struct {
        const char *more, *words;
    } wrong[] = {{"--positions first:0", "first:0"},
                 {"--positions first:", "first:"},
                 {"--positions first:2x", "first:2x"},
                 {"--positions last", "last"},
                 {"--freeze v@", "--freeze v@"},
                 {"--freeze v,", "--freeze v,"},
                 {"--freeze @prompt", "@prompt"},
                 {"--freeze v@prompt@answer", "--freeze"},
                 {"--freeze v,v,v,v,v,v,v,v,v", "more than 8"},
                 {"--positions answer --freeze v@prompt", "not where --freeze"},
                 {"--positions prompt --remove svv@answer", "not where --remove"},
                 {"--layers 3-", "--layers 3-"},
                 {"--layers 4-3", "--layers 4-3"},
                 {"--layers 1,,2", "--layers 1,,2"},
                 {"--layers 6", "has blocks 0 to 5"},
                 {"--layers 3 --vector v", "one --vector"},
                 {"--layers 3 --ablate zero", "--ablate"}};

    static char said[2][1 << 14];
    CHECK_THAT(!run_program(PROGRAM,
                            str("vector weights/tiny-gemma.bin --train 32 --out %s/g", temporary).s,
                            ""),
               "%s", complained);
    string ask =
        str("generate weights/tiny-gemma.bin \"How do I bake a cake?\" --max-new 24 --jsonl - "
            "--vector %s/g",
            temporary);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        for (int k = 0; k < 2; k++) {
            string more = str(k ? pairs[i].two : pairs[i].one, temporary);
            CHECK_THAT(!run_program(PROGRAM, str("%s %s", ask.s, more.s).s, ""), "%s: %s", more.s,
                       complained);
            snprintf(said[k], sizeof said[k], "%.16000s", shown);
        }
        int equal = !strcmp(said[0], said[1]);
        CHECK_THAT(equal || !pairs[i].same, "\"%s\" and \"%s\" answer otherwise", pairs[i].one,
                   pairs[i].two);
        CHECK_THAT(!equal || pairs[i].same, "\"%s\" and \"%s\" answer alike: %s", pairs[i].one,
                   pairs[i].two, said[0]);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_THAT(run_program(PROGRAM, str("%s %s", ask.s, wrong[i].more).s, "") == 2 &&
                       strstr(complained, wrong[i].words) && lines_of(complained) == 1,
                   "%s: %s", wrong[i].more, complained);
    /* In a conversation. */
    CHECK_THAT(
        !run_program(PROGRAM,
                     str("chat weights/tiny-gemma.bin --vector %s/g --layers 2-3", temporary).s,
                     "/positions first:3\n/freeze v@answer\n/freeze v@prompt\n/positions "
                     "never\n/coeff -1\n") &&
            strstr(shown, "blocks 2-3 at the first 3 tokens of the answer)") &&
            strstr(shown, "; values frozen in the answer)") &&
            strstr(shown, "(/positions first:3: the vector is not where /freeze acts)") &&
            strstr(shown, "(/positions never: all, prompt, answer") &&
            strstr(shown, "subtracted at blocks 2-3"),
        "%s", shown);
}

/* In evaluate and freeze: what is said in two ways, and what is not the same; random vectors stand
 * where the vector does. The others refuse it with their reason. */
static void test_placed_experiments(void) {
    static const struct {
        const char *one, *two, *row;
        int same;
    } pairs[] = {
        {"", "--positions all", "harmful steered -", 1},
        {"", "--layers 1", "harmful random -", 1},
        {"--coeff 2", "--coeff 1 --vector %s/g", "harmless steered +", 1},
        {"--layers 2-4", "--layers 4,2,3", "harmless random +", 1},
        {"--positions first:100", "--positions answer", "harmless steered +", 1},
        {"", "--layers 2-4", "harmless steered +", 0},
        {"--coeff 2", "--coeff 2 --positions answer", "harmless steered +", 0},
        {"--coeff 2 --positions prompt", "--coeff 2 --positions answer", "harmless random +", 0},
        {"--freeze v", "--freeze v@prompt,v@answer", "harmless +, as asked", 1},
        {"--remove svv", "--layers 1 --remove svv@prompt,svv@answer", "harmful -, as asked", 1},
        {"--freeze v@prompt", "--freeze v@answer", "harmless +, as asked", 0}};

    static const struct {
        const char *command, *more, *words;
    } wrong[] = {{"patch", "--positions answer", "does not use --positions: its graph is of one"},
                 {"reproduce", "--layers 3", "does not use --layers: its graph is of one vector"},
                 {"circuit", "--vector v", "--vector is given twice: its graph is of one vector"},
                 {"patch", "--freeze qk", "does not use --freeze: its graph is of one vector"},
                 {"evaluate", "--remove svv@end", "--remove svv@end: wanted is a list of svv,"},
                 {"freeze", "--freeze v@prompt --positions answer", "not where --freeze acts"},
                 {"freeze", "--layers 6", "has blocks 0 to 5"},
                 {"evaluate", "--positions last", "--positions last: all, prompt"},
                 {"evaluate", "--layers 3 --vector v", "one --vector"}};

    CHECK_THAT(!run_program(PROGRAM,
                            str("vector weights/tiny-gemma.bin --train 32 --out %s/g", temporary).s,
                            ""),
               "%s", complained);
    string model = str("weights/tiny-gemma.bin --vector %s/g", temporary);
    string ask = str("evaluate %s --limit 4 --max-new 24", model.s);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        string rates[2];
        for (int k = 0; k < 2; k++) {
            string more = str(k ? pairs[i].two : pairs[i].one, temporary);
            CHECK_THAT(!run_program(PROGRAM, str("%s %s", ask.s, more.s).s, ""), "%s: %s", more.s,
                       complained);
            rates[k] = rows_from(shown, pairs[i].row, 1);
            CHECK_THAT(*rates[k].s, "%s: no row \"%s\"", more.s, pairs[i].row);
        }
        int equal = !strcmp(rates[0].s, rates[1].s);
        CHECK_THAT(equal == pairs[i].same, "\"%s\" and \"%s\": %s and %s", pairs[i].one,
                   pairs[i].two, rates[0].s, rates[1].s);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        string line = str("%s %s %s", wrong[i].command, model.s, wrong[i].more);
        CHECK_THAT(run_program(PROGRAM, line.s, "") == 2 && strstr(complained, wrong[i].words) &&
                       lines_of(complained) == 1,
                   "%s: %s", line.s, complained);
    }

    /* A store tells the places apart. */
    string placed = str("%s --coeff 2 --positions answer", ask.s), said[2];
    for (int k = 0; k < 2; k++) {
        string store = str("--store %s/placed", temporary);
        CHECK_THAT(!k || !run_program(PROGRAM, str("%s --coeff 2 %s", ask.s, store.s).s, ""), "%s",
                   complained);
        CHECK_THAT(!run_program(PROGRAM, str("%s %s", placed.s, k ? store.s : "").s, ""), "%s",
                   complained);
        said[k] = rows_from(shown, "harmful steered -", 2);
    }
    CHECK_THAT(*said[0].s && !strcmp(said[0].s, said[1].s), "%s, from the store %s", said[0].s,
               said[1].s);

    /* Freezing, without faithfulness; and the directions of several blocks, of which none alone can
     * be ablated. */
    string freeze = str("freeze %s --limit 4 --max-new 8 --patch 1", model.s);
    CHECK_THAT(
        !run_program(PROGRAM, str("%s --positions prompt --freeze v@prompt", freeze.s).s, "") &&
            strstr(shown, "block 1 in the prompt, coefficient 1") &&
            strstr(shown, "faithfulness is not measured") &&
            !strstr(shown, "Freezing by position") && strstr(shown, "\nSVV removed"),
        "%s%s", complained, shown);
    const char *directions = strstr(shown, "\nLoss in points by direction");
    for (int k = 0; k < 2 && directions; k++)
        said[k] = rows_from(directions, k ? "as asked" : "OV frozen in the prompt", 1);
    size_t label = strlen("OV frozen in the prompt");
    CHECK_THAT(directions && strlen(said[1].s) > label &&
                   !strcmp(said[0].s + label, said[1].s + label),
               "%s", shown);
    steer_model *m = open_or_fail("weights/tiny-gemma.bin");
    steer_vector v = {0};
    steer_error e = {0};
    if (!m)
        return;
    CHECK_THAT(!steer_vector_load(&v, in_temporary("g"), m, 0, &e), "%s", e.text);
    size_t d = (size_t)v.d;
    v.every = calloc((size_t)(v.layers + 1) * d, sizeof *v.every);
    for (int b = 1; b < 4; b++)
        memcpy(v.every + (size_t)b * d, v.v, d * sizeof *v.v);
    CHECK_THAT(!steer_vector_save(&v, in_temporary("every.gguf"), &e), "%s", e.text);
    steer_vector_free(&v);
    steer_close(m);
    string every =
        str("weights/tiny-gemma.bin --vector %s/every.gguf --limit 4 --max-new 24", temporary);
    CHECK_THAT(!run_program(PROGRAM, str("evaluate %s", every.s).s, "") &&
                   strstr(shown, "several blocks, coefficient 1") && !strstr(shown, "ablated"),
               "%s%s", complained, shown);
    said[0] = rows_from(shown, "harmful steered -", 2);
    CHECK_THAT(!run_program(PROGRAM, str("%s --layers 1-3", ask.s).s, ""), "%s", complained);
    said[1] = rows_from(shown, "harmful steered -", 2);
    CHECK_THAT(!strcmp(said[0].s, said[1].s), "%s by its file, %s by --layers", said[0].s,
               said[1].s);
    CHECK_THAT(run_program(PROGRAM, str("patch %s", every.s).s, "") == 2 &&
                   strstr(complained, "directions for several blocks"),
               "%s", complained);
}

/* The table of places: everywhere is what the freezing table says; each share of the effect by
 * tokens is of a whole. */
static void test_position_tables(void) {
    size_t n;
    string line =
        str("freeze weights/tiny-gemma.bin --vector %s/g --limit 12 --patch 2 --max-new 12 "
            "--report %s/places",
            temporary, temporary);
    CHECK_THAT(!run_program(PROGRAM,
                            str("vector weights/tiny-gemma.bin --train 16 --out %s/g", temporary).s,
                            ""),
               "%s", complained);
    CHECK_THAT(!run_program(PROGRAM, line.s, ""), "%s", complained);
    const char *places = strstr(shown, "\nFreezing by position"),
               *tokens = strstr(shown, "\nThe same by");
    CHECK_THAT(places && tokens, "%s", shown);
    if (!places || !tokens)
        return;
    static const char *const rows[] = {"patterns frozen (QK)", "values frozen (OV)", "SVV removed",
                                       "MLP direct removed", "MLP outputs frozen"};
    const char *freezing = strstr(shown, "\nFreezing (paper");
    for (int i = 0; i < 5; i++) {
        double F[4] = {0}, whole = NAN;
        const char *row = strstr(places, rows[i]), *old = strstr(freezing, rows[i]);
        CHECK_THAT(row && old && sscanf(row + strlen(rows[i]), "%lf %lf %lf", F, F + 1, F + 2) == 3,
                   "%s: %s", rows[i], places);
        for (const char *s = old + strcspn(old, "\n"), *word = s; word > old; word--) {
            int numbers = 0; /* the last three of the row: faithfulness and its interval */
            for (s = word; s < old + strcspn(old, "\n"); s += strcspn(s, " \n"))
                numbers += *(s += strspn(s, " ")) != '\n';
            if (numbers == 3 && word[-1] == ' ' && *word != ' ') {
                whole = strtod(word, NULL);
                break;
            }
        }
        CHECK_THAT(fabs(F[0] - whole) < 1e-9, "%s: %g everywhere, %g in the freezing table",
                   rows[i], F[0], whole);
        CHECK_THAT(F[1] != F[2], "%s: prompt and answer alike", rows[i]);
    }
    double share[4];
    const char *effect = strstr(tokens, "share of the effect");
    CHECK_THAT(effect &&
                   sscanf(effect + 19, "%lf %lf %lf %lf", share, share + 1, share + 2, share + 3) >=
                       3 &&
                   fabs(share[0] + share[1] + share[2] - 1) < 0.2,
               "%s", tokens);
    char *json = read_file(in_temporary("places.json"), &n, NULL);
    CHECK_THAT(json && strstr(json, "\"places\"") && strstr(json, "\"tokens\""),
               "no tables in the report");
    free(json);
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

/* Every command that may work for long shows how far it is: a line that is wiped before
 * anything else appears, whose per cent only grow and, however fast the machine is, come to
 * `most` or more. */
static void test_progress_everywhere(void) {
    static char text[1 << 17];
    make_vector_file("v");
    char long_prompt[512] = "";
    for (int i = 0; i < 200; i++)
        strcat(long_prompt, " a");
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
        {str("generate weights/tiny-llama.bin \"%s\" --max-new 2 --quiet --answer Well",
             long_prompt),
         "reading the prompt", 99},
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
        CHECK_THAT(i > 4 || (!run_program(PROGRAM, runs[i].arguments.s, "") &&
                             !strstr(complained, "\033[K")),
                   "%s", complained);
    }
}

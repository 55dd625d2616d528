/* The program: its commands, its tables and their files, the whole paper. */

/* ---------------------------------------------------------------- a command's options */

/* The words of a command as a shell reads them: double quotes, a # that begins a comment. The line
 * is cut up; returns how many. */
static int words_of(char *line, char **list, int cap) {
    int n = 0;
    for (char *s = line; *s && n + 1 < cap;) {
        if (*s == ' ') {
            s++;
            continue;
        }
        if (*s == '#')
            break;
        int quoted = *s == '"';
        char *end = quoted ? strchr(s + 1, '"') : s + strcspn(s, " ");
        list[n++] = s + quoted;
        s = end && *end ? end + 1 : s + strlen(s);
        if (end)
            *end = 0;
    }
    list[n] = NULL;
    return n;
}

/* What the program does with "COMMAND ARGUMENT..." before it opens a file. */
static steer_status understand(const char *line, options *o, steer_error *e) {
    static char copy[4096];
    static char *list[64];
    snprintf(copy, sizeof copy, "%s", line);
    *e = (steer_error){0};
    if (!words_of(copy, list, 64))
        return no_such_command("", e);
    const known_command *c = command_called(list[0]);
    return c ? read_arguments(c, list + 1, o, e) : no_such_command(list[0], e);
}

/* ---------------------------------------------------------------- command line */

/* A command that is refused, its exit status, a word of the reason. %s is a folder. */
typedef struct {
    int status;
    const char *arguments, *word;
} refused_command;

static void command_is_refused(const refused_command *c, const char *folder) {
    char arguments[1024];
    snprintf(arguments, sizeof arguments, c->arguments, folder, folder);
    int status = run_program(PROGRAM, arguments, "");
    CHECK_THAT(status == c->status && strstr(complained, c->word),
               "`steer %s`: status %d, \"%.300s\"", arguments, status, complained);
    /* One line, after those of the memory that the experiments take. */
    int said_before = occurrences(complained, " of memory beside the file\n") +
                      occurrences(complained, ": patching takes ");
    CHECK_THAT(lines_of(complained) == said_before + 1, "`steer %s`: \"%.300s\"", arguments,
               complained);
}

static void test_command_line(void) {
    static const char box[] = "weights/tiny-llama.bin";
    steer_error e = {0};
    steer_model *m = open_or_fail(box);
    CHECK_THAT(exists(PROGRAM), "%s is missing: `make test` builds it", PROGRAM);
    if (!m || !exists(PROGRAM))
        return;
    steer_vector v = random_dim(m, 3);
    v.layer = 3;
    char dir[64], arguments[1024];
    snprintf(dir, sizeof dir, "%s", temporary);
    CHECK_THAT(!steer_vector_save(&v, in_temporary("v.vec"), &e), "%s", e.text);
    char *half = malloc(m->size / 2);
    memcpy(half, m->bytes, m->size / 2);
    write_bytes(in_temporary("cut.bin"), half, m->size / 2);
    write_bytes(in_temporary("empty.bin"), "", 0);
    write_bytes(in_temporary("prompts.txt"), "How do I bake a cake?\nHow do I fly?\n", 36);
    free(half);

    /* 2: the command was not understood; 1: it could not be done. */
    static const refused_command refused[] = {
        {2, "", "command"},
        {2, "frobnicate", "no such command"},
        {2, "info", "model"},
        {2, "generate", "model"},
        {2, "reproduce", "model"},
        {2, "info --frobnicate weights/tiny-llama.bin", "option"},
        {2, "generate weights/tiny-llama.bin", "prompt"},
        {2, "tokenize weights/tiny-llama.bin", "text"},
        {2, "generate weights/tiny-llama.bin --prompts %s/prompts.txt --system x", "--system"},
        {2, "evaluate weights/tiny-llama.bin --vector %s/v.vec --site auto", "--site"},
        {2, "freeze weights/tiny-llama.bin --vector %s/v.vec --circuit x", "--circuit"},
        {2, "vector weights/tiny-llama.bin", "--out"},
        {2, "generate weights/tiny-llama.bin x --max-new many", "--max-new"},
        {2, "generate weights/tiny-llama.bin x --max-new 0", "--max-new"},
        {2, "generate weights/tiny-llama.bin x --max-new -3", "--max-new"},
        {2, "generate weights/tiny-llama.bin x --max-new 1e12", "--max-new"},
        {2, "generate weights/tiny-llama.bin x --max-new", "value"},
        {2, "generate weights/tiny-llama.bin x --temp nan", "--temp"},
        {2, "generate weights/tiny-llama.bin x --top-p 1.5", "--top-p"},
        {2, "generate weights/tiny-llama.bin x --seed -1", "--seed"},
        {2, "generate weights/tiny-llama.bin x --coeff 1", "vector"},
        {2, "generate weights/tiny-llama.bin x --freeze v", "vector"},
        {2, "generate weights/tiny-llama.bin x --vector %s/v.vec --freeze w", "--freeze"},
        {2, "generate weights/tiny-llama.bin x --vector %s/v.vec --remove v", "--remove"},
        {2, "generate weights/tiny-llama.bin x --vector %s/v.vec --coeff x", "--coeff"},
        {2, "generate weights/tiny-llama.bin x --vector %s/v.vec --coeff inf", "--coeff"},
        {2, "generate weights/tiny-llama.bin x --vector %s/v.vec --ablate twice", "--ablate"},
        /* of two things only one can be done: not silently one of them */
        {2, "generate weights/tiny-llama.bin x --vector %s/v.vec --ablate zero --freeze v",
         "--ablate does not go with --freeze"},
        {2, "reproduce weights/tiny-llama.bin --site 3", "--site"},
        {2, "reproduce weights/tiny-llama.bin --limit 0", "--limit"},
        {1, "info %s/missing.bin", "missing.bin"},
        {1, "info %s/cut.bin", "truncated"},
        {1, "info %s", "regular"},
        {1, "info /dev/null", "/dev/null"},
        {1, "info %s/empty.bin", "empty"},
        {1, "info README.md", "README.md"},
        {1, "info steer.c", "not a steer model"},
        {1, "chat %s/cut.bin", "truncated"},
        {1, "reproduce %s/missing.bin", "missing.bin"},
        {1, "reproduce weights/tiny-llama.bin --data %s", "harmful"},
        {1, "generate weights/tiny-llama.bin x --vector %s/missing.vec", "missing.vec"},
        {1, "generate weights/tiny-llama.bin x --vector steer.c", "not a steering vector"},
        {1, "generate weights/tiny-llama.bin x --vector %s", "can't be read"},
        {1, "generate weights/tiny-gemma.bin x --vector %s/v.vec", "fingerprint"},
        {2, "generate weights/tiny-llama.bin x --compare", "vector"},
        {1, "generate weights/tiny-llama.bin x --system Hi", "system"},
        {1, "generate weights/tiny-llama.bin --prompts %s/missing.txt", "missing.txt"},
        {1, "generate weights/tiny-llama.bin --prompts %s/empty.bin", "no prompts"},
        {1, "generate weights/tiny-llama.bin --prompts %s/prompts.txt --max-new 2 --jsonl %s/no/x",
         "no/x"},
        {1, "vector weights/tiny-llama.bin --train 8 --site 99,-1 --out %s/w.vec", "site"},
        {1, "vector weights/tiny-llama.bin --train 8 --site 3,-1 --out %s/no/w.vec", "no/w.vec"}};

    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        command_is_refused(&refused[i], dir);
    CHECK_THAT(!exists(in_temporary("w.vec")) && !exists(in_temporary("w.vec.part")),
               "a vector was written all the same");

    static const struct {
        const char *arguments, *input, *words[3];
    } fine[] = {
        {"help", "", {"steer info", "steer generate"}},
        {"--help", "", {"steer info"}},
        {"info --verify weights/tiny-llama.bin", "", {"blocks", "right", "fingerprint"}},
        {"info weights/tiny-gemma.bin --verify", "", {"GeGLU", "right", "window"}},
        {"info weights/tiny-gemma.bin",
         "",
         {"window 48 in the first 1 of every 2", "queries times"}},
        {"info weights/tiny-llama.bin",
         "",
         {"before a question         \"<user>\\n\"", "1 \"<user>\", 203 ",
          "an answer ends with 3 \"<end>\""}},
        {"tokenize weights/tiny-llama.bin \"a cake\"", "", {"cake"}},
        {"tokenize weights/tiny-llama.bin --chat \"a cake\"", "", {"<bos>", "<assistant>"}},
        {"generate weights/tiny-llama.bin \"How do I bake a cake?\" --max-new 8", "", {"\n"}},
        {"generate weights/tiny-gemma.bin \"\" --max-new 8 --temp 1 --top-p 0.9 --seed 4",
         "",
         {"\n"}},
        {"generate weights/tiny-llama.bin --prompts %s/prompts.txt --max-new 4",
         "",
         {"> How do I fly?"}},
        {"generate weights/tiny-llama.bin hi --vector %s/v.vec --max-new 4 --compare",
         "",
         {"unsteered", "steered"}},
        {"generate weights/tiny-llama.bin hi --vector %s/v.vec --max-new 4 --freeze qk,v,mlp "
         "--coeff -2",
         "",
         {"\n"}},
        {"generate weights/tiny-llama.bin hi --vector %s/v.vec --max-new 4 --remove svv,mlp-direct",
         "",
         {"\n"}},
        {"generate weights/tiny-llama.bin hi --vector %s/v.vec --max-new 4 --ablate mean",
         "",
         {"\n"}},
        {"chat weights/tiny-llama.bin --vector %s/v.vec --max-new 4",
         "hi\n/coeff -2\nand you?\n/freeze v\nwho?\n/freeze off\n/freeze "
         "x\n/reset\n/what\n\n/coeff 0\nhi\n/quit\nno\n",
         {"/coeff X"}},
        {"chat weights/tiny-gemma.bin --max-new 4", "hi", {"\n"}},
        {"vector weights/tiny-llama.bin --train 8 --site 3,-1 --coeff 2 --out %s/made.vec",
         "",
         {"block 3, position -1"}},
        {"generate weights/tiny-llama.bin hi --vector %s/made.vec --max-new 4", "", {"\n"}}};

    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        snprintf(arguments, sizeof arguments, fine[i].arguments, dir);
        int status = run_program(PROGRAM, arguments, fine[i].input);
        CHECK_THAT(status == 0, "`steer %s`: status %d, \"%.300s\"", arguments, status, complained);
        for (int k = 0; k < 3 && fine[i].words[k]; k++)
            CHECK_THAT(strstr(shown, fine[i].words[k]), "`steer %s` does not say \"%s\":\n%.400s",
                       arguments, fine[i].words[k], shown);
    }
    /* Answers as JSON lines. */
    snprintf(arguments, sizeof arguments,
             "generate %s --prompts %s/prompts.txt --max-new 4 --jsonl %s/out.jsonl", box, dir,
             dir);
    int status = run_program(PROGRAM, arguments, "");
    read_text(in_temporary("out.jsonl"), shown, sizeof shown);
    CHECK_THAT(!status && lines_of(shown) == 2 &&
                   strstr(shown, "{\"prompt\": \"How do I fly?\", \"ids\": ["),
               "%.400s", shown);
    steer_vector_free(&v);
    steer_close(m);
}

/* Three texts, byte by byte in turn, in columns of ten characters. */
static void type_side_by_side(void *texts) {
    const char *const *text = texts;
    text_columns x = {.n = 3, .width = 10};
    size_t longest = 0;
    if (!freopen(in_temporary("columns"), "w", stdout))
        return;
    for (int i = 0; i < 3; i++) {
        x.column[i].typed.in_memory = 1;
        longest = strlen(text[i]) > longest ? strlen(text[i]) : longest;
    }
    put_titles(&x, (const string[]){{"a"}, {"a long title"}, {""}});
    for (size_t k = 0; k < longest; k++)
        for (int i = 0; i < 3; i++) {
            size_t n = strlen(text[i]);
            if (k < n)
                type_bytes(&x.column[i].typed, text[i] + k, 1);
            if (k + 1 == n)
                type_rest(&x.column[i].typed);
            x.column[i].ended |= k + 1 >= n;
            print_rows(&x);
            if (k == 12)
                printf("|");
        }
    for (int i = 0; i < 3; i++)
        x.column[i].ended = 1;
    print_rows(&x);
    for (int i = 0; i < x.n; i++)
        free(x.column[i].typed.text);
    fflush(stdout);
}

/* Rows come as soon as each column has its line; whatever the bytes, no line is too long and no
 * text is lost. */
static void test_side_by_side(void) {
    static const char *const known[] = {"one two three four five", "x\n\ny", "12345678901234567"};
    static const char expected[] = "a           a long\n"
                                   "            title\n"
                                   "-           ----------\n"
                                   "one two     x           1234567890\n"
                                   "|||three four              1234567\n"
                                   "five        y\n";
    char text[200], found[4096];
    const char *why = in_child(type_side_by_side, (void *)(uintptr_t)known, 5);
    read_text(in_temporary("columns"), found, sizeof found);
    CHECK_THAT(!why && !strcmp(found, expected), "%s: \"%s\"", why, found);
    for (int k = 0; k < 5; k++) { /* a long word, long broken UTF-8, spaces */
        memset(text, "x\x80 \xE2\n"[k], sizeof text - 1);
        text[sizeof text - 1] = 0;
        for (int at = 0; at < 3; at++) {
            const char *texts[] = {"", "a\n\nb", " "};
            texts[at] = text;
            why = in_child(type_side_by_side, texts, 5);
            read_text(in_temporary("columns"), found, sizeof found);
            int kept = 0;
            for (const char *c = found; *c; c++)
                kept += *c == text[0];
            CHECK_THAT(!why && (*text == ' ' || *text == '\n' || kept >= 199), "byte %d: %s, %d",
                       text[0] & 255, why, kept);
        }
    }
}

/* The words of column i, of `width` characters, of all lines behind the two of titles. */
static string words_of_column(const char *text, int i, int width) {
    string all = {""};
    int row = 0;
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1, row++) {
        int n = (int)strcspn(line, "\r\n"), from = i * (width + 2);
        if (row < 2 || from >= n)
            continue;
        all = str("%s %.*s", all.s, min_int(width, n - from), line + from);
        if (!strchr(line, '\n'))
            break;
    }
    return one_line(all.s);
}

/* Unsteered, steered, and what is frozen: each column says what the answer alone does. */
static void test_compare(void) {
    static const char *const options_of[] = {"", "--vector %s/v", "--vector %s/v --freeze v"};
    static char compared[4096], text[1 << 14];
    make_vector_file("v");
    string ask =
        str("generate weights/tiny-llama.bin \"How do I bake a cake?\" --max-new 30 --quiet");
    string both_columns = str("%s --vector %s/v --compare", ask.s, temporary);
    string three = str("%s --freeze v", both_columns.s);
    CHECK_THAT(!run_program(PROGRAM, three.s, ""), "%s", complained);
    snprintf(compared, sizeof compared, "%.4000s", shown);
    CHECK_THAT(!strncmp(compared,
                        "unsteered                  steered                    steered, "
                        "values frozen\n",
                        76) &&
                   lines_of_screen(compared) > 3,
               "%s", compared);
    for (int i = 0; i < 3; i++) {
        string plan = str(options_of[i], temporary);
        CHECK_THAT(!run_program(PROGRAM, str("%s %s", ask.s, plan.s).s, ""), "%s", complained);
        string alone = one_line(shown), column_words = words_of_column(compared, i, 25);
        CHECK_THAT(*alone.s && !strcmp(alone.s, column_words.s), "column %d: \"%s\", alone \"%s\"",
                   i, column_words.s, alone.s);
    }
    CHECK_THAT(!run_program(PROGRAM, both_columns.s, "") && !strstr(shown, "frozen"), "%s", shown);
    for (terminal_columns = 50; terminal_columns <= 120; terminal_columns += 70) {
        run_on_terminal(three.s, "", text, sizeof text);
        int widest = 0;
        for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
            widest = max_int(widest, (int)strcspn(line, "\r\n"));
            if (!strchr(line, '\n'))
                break;
        }
        CHECK_THAT(widest > terminal_columns / 2 && widest <= terminal_columns, "%d of %d:\n%s",
                   widest, terminal_columns, text);
    }
    terminal_columns = 0;
}

/* Each command of a conversation says what it did; the conversation goes on whatever it says. */
static void test_chat_commands(void) {
    make_vector_file("v");

    struct {
        string typed;
        const char *said[3];
    } lines[] = {
        {str("/status"), {"tiny-llama.bin: 0 turns", "there is no vector"}},
        {str("/coeff 2"), {"(no vector is added: /vector FILE"}},
        {str("/freeze v"), {"(nothing to freeze against: /vector FILE)"}},
        {str("/compare"), {"(ask something first"}},
        {str("/vector %s/none", temporary), {"/none: No such file"}},
        {str("/vector steer.c"), {"(steer.c: not a steering vector"}},
        {str("/vector"), {"(/coeff X, /freeze qk|v|mlp|off, /vector FILE, /positions WHERE, "}},
        {str("/vector %s/v", temporary), {"(coefficient 2: the vector is added at block 3)"}},
        {str("/coeff -1.5"), {"(coefficient -1.5: the vector is subtracted at block 3)"}},
        {str("/coeff"), {"(coefficient -1.5: the vector is subtracted at block 3)"}},
        {str("/coeff much"), {"(/coeff much: a number is wanted)"}},
        {str("/coeff nan"), {"(/coeff nan: a number is wanted)"}},
        {str("/coeff 2x"), {"(/coeff 2x: a number is wanted)"}},
        {str("/coeff 1e7"), {"(/coeff 1e7: a number is wanted)"}},
        {str("/freeze qk,v"), {"at block 3; patterns frozen, values frozen)"}},
        {str("/freeze w"),
         {"(/freeze w: wanted is a list of qk,v,mlp, each alone or with @prompt, @answer or "
          "@first:N; or off)"}},
        {str("/freeze"), {"at block 3; patterns frozen, values frozen)"}},
        {str("How do I bake a cake?"), {""}},
        {str("/compare"), {"unsteered  ", "steered, patterns", "---"}},
        {str("/freeze off"), {"subtracted at block 3)"}},
        {str("/status"), {"tiny-llama.bin: 1 turns", "/v: dim, block 3, position -1", "-1.5"}},
        {str("/coeff 0"), {"(unsteered: the coefficient is 0)"}},
        {str("/steer"), {"(/coeff X, "}},
        {str("/reset"), {"(the conversation begins anew)"}},
        {str("/compare"), {"(ask something first"}},
    };

    enum { LINES = sizeof lines / sizeof *lines };

    static char input[8192];
    size_t n = 0;
    for (int i = 0; i < LINES; i++)
        n += (size_t)snprintf(input + n, sizeof input - n, "%s\n", lines[i].typed.s);
    CHECK_THAT(!run_program(PROGRAM, "chat weights/tiny-llama.bin --max-new 6", input) &&
                   !*complained,
               "%s", complained);
    const char *at = shown;
    for (int i = 0; i < LINES; i++)
        for (int k = 0; k < 3 && lines[i].said[k]; k++) {
            const char *found = strstr(at, lines[i].said[k]);
            CHECK_THAT(found, "%s: no \"%s\" in:\n%.600s", lines[i].typed.s, lines[i].said[k], at);
            at = found ? found + strlen(lines[i].said[k]) : at;
        }

    /* On a terminal what it says has no line that is wider: neither what is in force nor the list
     * of commands nor a fault. */
    static char text[1 << 14];
    char arguments[512];
    snprintf(arguments, sizeof arguments, "chat weights/tiny-llama.bin --vector %s/v", temporary);
    for (int columns = 40; columns <= 80; columns += 40) {
        int widest = 0;
        terminal_columns = columns;
        run_on_terminal(
            arguments,
            "/positions prompt\n/freeze qk,v@prompt,mlp@first:3\n/status\n/help\n"
            "/vector a file of which the name alone is wider than many a terminal is, a "
            "file\n/freeze patterns,values\n",
            text, sizeof text);
        for (const char *s = text; *s; s += strcspn(s, "\n") + 1)
            widest = max_int(widest, (int)strcspn(s, "\n"));
        CHECK_THAT(widest <= columns && strstr(text, "frozen") && strstr(text, "/quit)") &&
                       strstr(text, "a file:") && strstr(text, "wanted"),
                   "%d of %d columns:\n%s", widest, columns, text);
    }
    terminal_columns = 0;
}

/* ---------------------------------------------------------------- experiments */

/* Shards run side by side by xargs, joined, print what one run prints, byte for byte; a store cut
 * short is mended by the run that goes on; what does not fit is refused and leaves nothing. */
static void test_shards(void) {
    static const char set[] = "--limit 5 --patch 1 --exact 0 --max-new 8";
    static char whole[sizeof shown];
    char arguments[512], script[2048];
    const char *const model = "weights/tiny-gemma.bin", *const t = temporary;
    snprintf(arguments, sizeof arguments, "vector %s --train 12 --out %s/v", model, t);
    CHECK_THAT(!run_program(PROGRAM, arguments, ""), "vector: %s", complained);
    snprintf(arguments, sizeof arguments, "patch %s --vector %s/v %s", model, t, set);
    CHECK_THAT(!run_program(PROGRAM, arguments, ""), "patch: %s", complained);
    memcpy(whole, shown, sizeof whole);
    CHECK_THAT(strstr(whole, "complete"), "patch prints no table: %.200s", whole);
    snprintf(script, sizeof script,
             "printf '1\\n2\\n3\\n' | OMP_NUM_THREADS=1 xargs -P 3 -I@ %s %s --shard @/3 --store "
             "%s/part@ >%s/shards 2>&1",
             PROGRAM, arguments, t, t);
    CHECK_THAT(!system(script), "xargs fails");
    snprintf(script, sizeof script, "merge %s/part1 %s/part2 %s/part3 --out %s/all", t, t, t, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "merge: %s", complained);
    snprintf(script, sizeof script, "%s --store %s/all", arguments, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "from the store: %s", complained);
    CHECK_THAT(!strcmp(whole, shown), "the merged run prints something else:\n%.600s", shown);
    static char bytes[1 << 22];
    FILE *f = fopen(in_temporary("all"), "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (f)
        fclose(f);
    CHECK_THAT(n > 1000 && n < sizeof bytes, "a store of %zu bytes", n);
    write_bytes(in_temporary("cut"), bytes, n - 77); /* a run that was killed while it wrote */
    snprintf(script, sizeof script, "%s --store %s/cut", arguments, t);
    CHECK_THAT(!run_program(PROGRAM, script, "") && strstr(complained, "bytes are cut off"),
               "from a cut store: %s", complained);
    CHECK_THAT(!strcmp(whole, shown), "from a cut store: another result");
    /* An answer of a million tokens, its checksums right: refused, not believed. */
    record_head h;
    for (size_t at = sizeof(store_head); at + sizeof h <= n; at += sizeof h + 8 * (size_t)h.n) {
        double first = 1e6;
        memcpy(&h, bytes + at, sizeof h);
        if (h.n != 10)
            continue; /* 2 + --max-new numbers: an answer */
        memcpy(bytes + at + sizeof h, &first, sizeof first);
        h.crc = crc32_of(0, bytes + at + sizeof h, 80);
        h.head_crc = crc32_of(0, &h, offsetof(record_head, head_crc));
        memcpy(bytes + at, &h, sizeof h);
    }
    write_bytes(in_temporary("unsound"), bytes, n);
    snprintf(script, sizeof script, "%s --store %s/unsound", arguments, t);
    command_is_refused(&(refused_command){1, script, "--store"}, t);
    /* A part that is not there: nothing is made of the others, nor in its place. */
    snprintf(script, sizeof script, "merge %s/part1 %s/part9 --out %s/none", t, t, t);
    command_is_refused(&(refused_command){1, script, "part9"}, t);
    CHECK_THAT(!exists(in_temporary("none")) && !exists(in_temporary("part9")),
               "a part that was not there, or its merge, is made");
    /* Two models share a store; the second time all is in it. */
    snprintf(script, sizeof script,
             "reproduce weights/tiny-llama.bin %s --quick --limit 4 --val 4 "
             "--train 8 --map 0 --patch 1 --exact 0 --max-new 8 --store %s/both",
             model, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "two models: %s", complained);
    memcpy(whole, shown, sizeof whole);
    free(read_file(in_temporary("both"), &n, NULL));
    size_t first = n;
    CHECK_THAT(!run_program(PROGRAM, script, ""), "two models again: %s", complained);
    free(read_file(in_temporary("both"), &n, NULL));
    CHECK_THAT(!strcmp(whole, shown) && n == first && n > 1000, "%zu bytes, then %zu", first, n);
    static const refused_command wrong[] = {
        {2, "--vector %s/v --shard 4/3 --store %s/x", "--shard"},
        {2, "--vector %s/v --shard 1/2", "--store"},
        {1, "--vector %s/v --store %s/v", "store"},
        {1, "--vector %s/v --max-mem 1", "max-mem"},
        {2, "--vector %s/v --metric entropy", "--metric"}};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        string line = str("patch %s %s %s", model, set, wrong[i].arguments);
        command_is_refused(&(refused_command){wrong[i].status, line.s, wrong[i].word}, t);
    }
    command_is_refused(&(refused_command){1, "patch weights/tiny-llama.bin --vector %s/v", "fit"},
                       t);
}

/* A circuit's file: the smallest circuit goes into it and comes out as faithful; another model's,
 * one with an edge that is none, without edges, or of something else is refused. */
static void test_circuit_files(void) {
    static const char set[] = "--limit 6 --patch 2 --max-new 12";
    const char *const t = temporary, *found;
    char arguments[512], script[1024], text[1 << 16];
    steer_error e = {0};
    size_t n;
    snprintf(arguments, sizeof arguments,
             "vector weights/tiny-gemma.bin --train 12 "
             "--out %s/cv",
             t);
    CHECK_THAT(!run_program(PROGRAM, arguments, ""), "vector: %s", complained);
    snprintf(arguments, sizeof arguments, "circuit weights/tiny-gemma.bin --vector %s/cv %s", t,
             set);
    snprintf(script, sizeof script, "%s --exact 0 --out %s/circuit", arguments, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "circuit: %s", complained);
    found = strstr(shown, "smallest circuit of DIM with faithfulness 0.85: ");
    int edges = found ? atoi(found + 48) : 0;
    char *file = read_file(in_temporary("circuit"), &n, &e);
    CHECK_THAT(file && edges > 0 && lines_of(file) == edges + 1, "%d edges in %s", edges, file);
    snprintf(script, sizeof script, "%s --circuit %s/circuit", arguments, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "from the file: %s", complained);
    found = strstr(shown, "faithfulness of the circuit in ");
    found = found ? strstr(found, ": ") : NULL;
    double F = found ? atof(found + 2) : 0;
    CHECK_THAT(F >= 0.849 && F < 1.2, "faithfulness %g", F);
    /* Half the edges, the graph's first ones, carry less. */
    char *half = file;
    for (int i = 0; i < edges / 2 && half; i++)
        half = strchr(half, '\n') + 1;
    if (half)
        write_bytes(in_temporary("half"), file, (size_t)(half - file));
    snprintf(script, sizeof script, "%s --circuit %s/half", arguments, t);
    CHECK_THAT(!run_program(PROGRAM, script, ""), "half: %s", complained);
    found = strstr(shown, "faithfulness of the circuit in ");
    found = found ? strstr(found, ": ") : NULL;
    CHECK_THAT(found && atof(found + 2) < 0.7 * F, "half of the edges carry %.8s", found);

    static const struct {
        const char *from, *to, *word;
    } faults[] = {{"block 1", "block 2", "another graph"},
                  {"steer circuit ", NULL, "another graph"},
                  {"\n", "\n-1 ", "line 2"},
                  {"\n", "\n99999999 x\n", "line 2"},
                  {"\n", "\nx", "line 2"},
                  {"steer ", "", "not a circuit file"},
                  {" block", "", "not a circuit file"}};

    for (size_t i = 0; i < sizeof faults / sizeof *faults && file; i++) {
        const char *at = strstr(file, faults[i].from);
        CHECK_THAT(at != NULL, "fault %zu", i);
        if (!at)
            continue;
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - file), file,
                 faults[i].to ? faults[i].to : "", at + strlen(faults[i].from));
        if (!faults[i].to) { /* another model: one digit of its fingerprint */
            snprintf(text, sizeof text, "%s", file);
            char *digit = text + strlen(faults[i].from);
            *digit = *digit == '0' ? '1' : '0';
        }
        write_bytes(in_temporary("wrong"), text, strlen(text));
        snprintf(script, sizeof script, "%s --circuit %s/wrong", arguments, t);
        command_is_refused(&(refused_command){1, script, faults[i].word}, t);
    }
    if (file)
        write_bytes(in_temporary("wrong"), file, strcspn(file, "\n") + 1);
    snprintf(script, sizeof script, "%s --circuit %s/wrong", arguments, t);
    command_is_refused(&(refused_command){1, script, "without edges"}, t);
    snprintf(script, sizeof script, "%s --circuit %s/missing", arguments, t);
    command_is_refused(&(refused_command){1, script, "missing"}, t);
    free(file);
}

/* A short reproduction, as text and as JSON: every table is there, every number is one. */
static void test_reproduce(void) {
    if (!exists(PROGRAM)) {
        CHECK_THAT(0, "%s is missing: `make test` builds it", PROGRAM);
        return;
    }
    static const char *const models[] = {"weights/tiny-llama.bin", "weights/tiny-gemma.bin"};
    static const char *const words[] = {"Steering",
                                        "Freezing",
                                        "Dose",
                                        "Site map",
                                        "patterns frozen",
                                        "values frozen",
                                        "SVV removed",
                                        "perplexity",
                                        "judge",
                                        "random vectors",
                                        "(the model file's; ",
                                        "the reported site, block 1"};
    static const char *const site[] = {"does not pass the rule (", "passes the rule: "};
    char arguments[512];
    for (int k = 0; k < 2; k++) {
        snprintf(arguments, sizeof arguments,
                 "reproduce %s --train 12 --limit 3 --val 4 --map %d --max-new 12 --patch 1 "
                 "--exact 0 %s",
                 models[k], 1 - k, k ? "--pairs 6 --epochs 1 --json" : "--quick");
        int status = run_program(PROGRAM, arguments, "");
        CHECK_THAT(status == 0, "`steer %s`: status %d, \"%.300s\"", arguments, status, complained);
        CHECK_THAT(!strstr(shown, "nan") && !strstr(shown, "inf,"),
                   "`steer %s` prints what is no number", arguments);
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            CHECK_THAT(strstr(shown, words[i]) || (k && i == 3), "`steer %s` does not say \"%s\"",
                       arguments, words[i]);
        CHECK_THAT(strstr(shown, site[k]), "`steer %s` does not say \"%s\"", arguments, site[k]);
        int depth = 0, in_string = 0;
        for (const char *s = shown; *s && k; s++) {
            if (*s == '"' && s[-1] != '\\')
                in_string = !in_string;
            if (!in_string)
                depth += (*s == '[' || *s == '{') - (*s == ']' || *s == '}');
            CHECK_THAT(depth >= 0, "JSON closes more than it opens");
        }
        CHECK_THAT(!depth && !in_string, "JSON ends with %d open brackets", depth);
    }
}

/* A model without an answer grammar is none of the box: the freezing tables, all with --patch.
 * Where the coefficient is too small for any site to steer, the map is empty. */
static void test_brief(void) {
    static const char *const lines[] = {
        "reproduce M --train 12 --limit 3 --val 4 --max-new 8 --map 1 --coeff 0.01",
        "reproduce M --train 12 --limit 3 --val 4 --max-new 8 --map 0 --pairs 4 --epochs 1 "
        "--patch 1"};
    char *argument[] = {"weights/tiny-llama.bin", NULL};
    for (int all = 0; all < 2; all++) {
        steer_error e = {0};
        report out = {0};
        int freezing = 0, patching = 0, shaded = 0, answers[2] = {0, 0};
        options o;
        experiment s = {.m = open_or_fail(*argument), .out = &out, .e = &e, .stages = EVERYTHING};
        steer_model *m = (steer_model *)(uintptr_t)s.m;
        if (!m)
            return;
        m->grammar_size = 0;
        s.path = *argument;
        CHECK_THAT(!understand(lines[all], &o, &e), "%s", e.text);
        CHECK_THAT(!prepare_paper(&s, &o) && !command_paper(&s, &o), "%s", e.text);
        for (size_t i = 0; i < n_entries(&out); i++) {
            const entry *t = AT(out.entries, entry, i);
            freezing += t->kind == IS_TABLE && !strcmp(t->name, "freezing");
            patching += t->kind == IS_TABLE && !strcmp(t->name, "patching");
            shaded += t->kind == IS_TABLE && !strcmp(t->name, "shaded");
            answers[t->side] += t->kind == IS_ANSWER;
        }
        CHECK_THAT(freezing == 1 && patching == all, "%d tables of freezing, %d of patching",
                   freezing, patching);
        /* The prompts are the box's: where steering does anything, harmless ones are shown, harmful
         * ones never. */
        CHECK_THAT((answers[HARMLESS] > 0) == all && !answers[HARMFUL] && shaded == all,
                   "%d harmful, %d harmless answers, %d shaded", answers[HARMFUL],
                   answers[HARMLESS], shaded);
        clear_experiment(&s);
        free_report(&out);
        steer_close(m);
    }
}

/* ---------------------------------------------------------------- the report */

static void test_report(void) {
    static const char
        hostile[] = "<script>alert(\"x\")</script> & </p> 'q' \\ \" \xC3\xA9 \xE2\x82\xAC",
        broken[] =
            "\xFF\xC3( \xED\xA0\x80 \xC0\xAF \xF4\x90\x80\x80 \x1B[31m \x01 \x7F \xC2\x9B end",
        lines[] = "two\nlines\tand a tab: \\n \"";
    steer_model m = {0};
    report r = {.f = tmpfile()};
    char *json, *html, *text = NULL, decoded[256];
    static const char page[] = "<p>\n<script>\nlet report = /*REPORT*/null/*END*/;\n</script>\n";
    size_t n = 0;
    CHECK_THAT(is_json("[{\"a\": [1, -2.5e+06, null]}, \"\\u00e9\\n\"]") && !is_json("[1,]") &&
                   !is_json("[nan]") && !is_json("{\"a\" 1}") && !is_json("[\"\n\"]") &&
                   !is_json("[01]") && !is_json("[") && !is_json("[\"\\x\"]") &&
                   !is_json("[\"\xFF\"]") && !is_json("[] []") && !is_json("[1 2]"),
               "the checker of JSON");
    report empty = {0};
    json = report_text(&empty, NULL, &n);
    CHECK_THAT(json && is_json(json) && strstr(json, "\"models\": []}"), "%s", json);
    free(json);

    snprintf(m.config.name, sizeof m.config.name, "<b>\"m\" & \xFF</b>");
    m.config.fingerprint = 0x123456789ABCDEFull;
    open_report(&r, &m, 0);
    add_note(&r, "%s", hostile);
    add_note(&r, "%s", broken);
    add_note(&r, "%s", lines);
    add_note(&r, "%s", "");
    const measure numbers[] = {
        {"share & <b>", {0.5, -INFINITY, 0.75, 1, 9}, "at least", 0.25, NAN, NULL}, {0}};
    add_finding(&r, hostile, "holds in part", broken, numbers);
    add_finding(&r, "a claim", "fails", "100% of <it>", numbers + 1);
    add_answer(&r, HARMLESS, "+s, values frozen", 0, hostile, lines);
    open_table(&r, "words",
               (const column[]){{"what <is>", WORDS},
                                {"n", 0},
                                {"x", 2},
                                {"text & such", WORDS},
                                {"left", 1},
                                {"code", CODE},
                                {0}},
               "%s", hostile);
    add_row(&r, hostile, (const double[]){3, NAN}, 2, (const char *[]){broken}, 1);
    add_row(&r, broken, (const double[]){-0.0, INFINITY}, 2, (const char *[]){hostile}, 1);
    add_row(&r, "", (const double[]){1e300, -1e-300, -INFINITY}, 3, (const char *[]){lines}, 1);
    json = report_text(&r, NULL, &n);
    html = report_text(&r, page, &(size_t){0});
    CHECK_THAT(json && html && strlen(json) == n && is_json(json), "not JSON: %s", json);
    if (json && html) {
        CHECK_THAT(strstr(json, "{\"name\": \"code\", \"type\": \"number\", \"decimals\": 0}") &&
                       occurrences(json, "null") == 11 && strstr(json, "123456789abcdef"),
                   "%d nulls: %s", occurrences(json, "null"), json);
        const char *at = strstr(json, "\"notes\": [\n    ");
        decode_json(at ? at + 15 : "\"", decoded);
        CHECK_THAT(!strcmp(decoded, hostile), "\"%s\" came back", decoded);
        at = at ? strstr(at, "\"two") : NULL;
        decode_json(at ? at : "\"", decoded);
        CHECK_THAT(strstr(json, "\"value\": 0.5, \"low\": null, \"high\": 0.75, \"holds\": 0.25, "
                                "\"in part\": null") &&
                       strstr(json, "\"side\": \"harmless\", \"under\": \"+s, values frozen\", "
                                    "\"refuses\": false"),
                   "a finding's numbers, an answer: %s", json);
        CHECK_THAT(!strcmp(decoded, lines), "\"%s\" came back", decoded);
        CHECK_THAT(occurrences(json, "\xEF\xBF\xBD") >= 20, "what is broken is shown as such: %d",
                   occurrences(json, "\xEF\xBF\xBD"));
        /* The page: as it was before and behind the report; no text of others ends the script. */
        const char *at_json = strstr(html, "report = "), *end = strstr(html, ";\n</script>\n");
        CHECK_THAT(at_json && end && !memcmp(html, page, (size_t)(at_json - html)) &&
                       end - at_json == (long)(9 + n) && !memcmp(at_json + 9, json, n) &&
                       occurrences(html, "<") == 3 && strlen(end) == 12,
                   "a page: %.300s", html);
    }
    free(json);
    free(html);
    /* As text: every line once, nothing that steers a terminal. */
    if (r.f) {
        fflush(r.f);
        rewind(r.f);
        text = zeros(1 << 16, 1);
        n = fread(text, 1, (1 << 16) - 1, r.f);
        fclose(r.f);
        int controls = 0;
        for (size_t i = 0; i < n; i++)
            controls += ((unsigned char)text[i] < 32 && text[i] != '\n') || text[i] == 127;
        CHECK_THAT(n > 500 && !controls && !strstr(text, "\xC2\x9B") &&
                       strstr(text, "a claim: fails; 100% of <it>") && !strstr(text, "code") &&
                       strstr(text, "text & such") && !strstr(text, "+s, values frozen"),
                   "%zu bytes, %d control characters", n, controls);
        free(text);
    }
    free_report(&r);
}

/* ------------------------------------------------------------ a program that links the library */

/* The library alone, compiled once; its object file. */
static const char *library_object(void) {
    static char path[128];
    int status = 0;
    if (!*path) {
        snprintf(path, sizeof path, "%s/library.o", temporary);
        string command = str("cc -std=gnu11 -O1 -DSTEER_NO_MAIN -c steer.c -o %s 2>&1", path);
        char *said = output_of(command.s, &status);
        CHECK_THAT(!status && !*said, "%s:\n%s", command.s, said);
        free(said);
    }
    return path;
}

/* README's lines of C, in a frame of declarations: they compile without a warning, and answer as
 * the program does. */
static void test_snippet(void) {
    static const char before[] = "#include <stdio.h>\n"
                                 "#include \"steer.h\"\n"
                                 "int main(void) {\n"
                                 "    steer_error e = {0};\n"
                                 "    steer_vector v;\n"
                                 "    const char *question = \"How do I bake a cake?\";\n"
                                 "    int tokens[256], answer[64];\n"
                                 "    char text[4096];\n";
    static const char behind[] = "    steer_decode(m, answer, job.n_out, text, sizeof text);\n"
                                 "    puts(text);\n"
                                 "    fputs(e.text, stderr);\n"
                                 "    return e.code;\n"
                                 "}\n";
    static char answer[sizeof shown];
    static char readme[1 << 16];
    static char whole[4096];
    const char *t = temporary;
    read_text("README.md", readme, sizeof readme);
    const char *lines = strstr(readme, "\n## As a library\n");
    lines = lines ? strstr(lines, "\n```c\n") : NULL;
    const char *end = lines ? strstr(lines + 1, "\n```\n") : NULL;
    CHECK_THAT(end, "README.md shows no C under `As a library`");
    if (!end)
        return;
    lines += strlen("\n```c");
    snprintf(whole, sizeof whole, "%s%.*s\n%s", before, (int)(end - lines), lines, behind);
    write_bytes(in_temporary("snippet.c"), whole, strlen(whole));
    int status;
    string compile = str("cc -std=gnu11 -Wall -Wextra -Wpedantic -Wshadow -Werror -I. %s/snippet.c "
                         "%s -lm -o %s/snippet 2>&1",
                         t, library_object(), t);
    char *said = output_of(compile.s, &status);
    CHECK_THAT(!status, "README's C does not compile:\n%.600s", said);
    free(said);

    string vector =
        str("vector weights/tiny-gemma.bin --train 8 --site 3,-1 --out %s/refuse.vec", t);
    CHECK_THAT(!run_program(PROGRAM, vector.s, ""), "%s", complained);
    string ask = str("generate weights/tiny-gemma.bin \"How do I bake a cake?\" --quiet "
                     "--max-new 64 --vector %s/refuse.vec --freeze v",
                     t);
    CHECK_THAT(!run_program(PROGRAM, ask.s, "") && strlen(shown) > 1, "%s", complained);
    memcpy(answer, shown, sizeof answer);
    string run = str("ln -s \"$PWD\"/weights %s/weights && cd %s && ./snippet", t, t);
    CHECK_THAT(!run_program(run.s, "", "") && !strcmp(answer, shown),
               "README's C answers \"%s\", the program \"%s\"; %s", shown, answer, complained);
}

/* Whether a word ends here. */
static int ends_word(char c) {
    return !isalnum((unsigned char)c) && c != '_';
}

/* The library has the functions that steer.h declares, and no other symbol. */
static void test_public_names(void) {
    static char header[1 << 16];
    int status, declared = 0, defined = 0;
    read_text("steer.h", header, sizeof header);
    for (char *s = header; (s = strstr(s, "/*"));)
        while (strncmp(s, "*/", 2))
            *s++ = ' ';
    string command = str("nm -P -g --defined-only %s", library_object());
    char *symbols = output_of(command.s, &status);
    CHECK_THAT(!status, "%s ends with %d", command.s, status);
    for (char *s = header; (s = strstr(s, "steer_")); s++) {
        int length = 0;
        while (!ends_word(s[length]))
            length++;
        if (s[length] != '(' || !ends_word(s[-1]))
            continue;
        string line = str("\n%.*s T ", length, s);
        CHECK_THAT(strstr(symbols, line.s) || !strncmp(symbols, line.s + 1, strlen(line.s + 1)),
                   "%.*s is declared only", length, s);
        declared++;
    }
    for (char *s = symbols; *s; s = strchr(s, '\n') + 1) {
        CHECK_THAT(!strncmp(s, "steer_", 6), "a symbol of the library's is %.40s", s);
        defined++;
    }
    CHECK_THAT(declared == defined && declared > 50, "%d functions are declared, %d defined",
               declared, defined);
    free(symbols);
}

static void test_user(void) {
    steer_error e = {0};
    steer_model *m = open_or_fail("weights/tiny-llama.bin");
    CHECK_THAT(exists(USER_PROGRAM), "%s is missing: `make test` builds it", USER_PROGRAM);
    if (!m || !exists(USER_PROGRAM))
        return;
    steer_vector v = random_dim(m, 3);
    v.layer = 3;
    v.coeff = 2;
    char arguments[256], plain[1024];
    CHECK_THAT(!steer_vector_save(&v, in_temporary("v.vec"), &e), "%s", e.text);
    snprintf(arguments, sizeof arguments, "weights/tiny-llama.bin \"How do I bake a cake?\"");
    int status = run_program(USER_PROGRAM, arguments, "");
    snprintf(plain, sizeof plain, "%.1000s", shown);
    CHECK_THAT(!status && strlen(plain) > 1 && !*complained, "status %d: \"%s\", \"%s\"", status,
               plain, complained);
    int same = run_program(
        PROGRAM, "generate weights/tiny-llama.bin \"How do I bake a cake?\" --max-new 64 --quiet",
        "");
    CHECK_THAT(!same && !strcmp(shown, plain), "the program answers \"%s\", its user \"%s\"", shown,
               plain);
    snprintf(arguments, sizeof arguments,
             "weights/tiny-llama.bin \"How do I bake a cake?\" %s/v.vec", temporary);
    status = run_program(USER_PROGRAM, arguments, "");
    CHECK_THAT(!status && strcmp(shown, plain), "steered, status %d: \"%s\", \"%s\"", status, shown,
               complained);
    CHECK_THAT(run_program(USER_PROGRAM, "steer.c x", "") == 1 && lines_of(complained) == 1,
               "\"%s\"", complained);
    steer_vector_free(&v);
    steer_close(m);
}

/* ---------------------------------------------------------------- the whole paper */

/* One prompt's greedy answer under a plan (or NULL), without its end-of-turn token; its length. */
static int answer_alone(const steer_model *m, const int *prompt, int n_prompt,
                        const steer_plan *plan, int max_new, int *out) {
    steer_error e = {0};
    steer_limits limits = {.streams = 2, .positions = n_prompt + max_new};
    steer_context *c = steer_context_new(m, &limits, &e);
    steer_job job = {prompt, n_prompt, max_new, plan, .out = out};

    CHECK_THAT(c && !steer_generate(c, &job, 1, NULL, NULL, &e), "%s", e.text);
    steer_context_free(c);
    if (job.n_out && is_eot(&m->config, out[job.n_out - 1]))
        job.n_out--;
    return job.n_out;
}

static int refuses(const steer_model *m, const int *tokens, int n) {
    char text[1024];
    steer_decode(m, tokens, n, text, sizeof text);
    return steer_shows(NULL, text);
}

static void check_response(const steer_pair *x, int which, const int *prompt, int n_prompt,
                           const int *answer, int n_answer, const char *what) {
    CHECK_THAT(x->n_prompt == n_prompt, "%s: a prompt of %d tokens, not %d", what, x->n_prompt,
               n_prompt);
    CHECK_THAT(x->n[which] == n_prompt + n_answer, "%s: %d tokens, not %d + %d", what, x->n[which],
               n_prompt, n_answer);
    if (x->n_prompt != n_prompt || x->n[which] != n_prompt + n_answer)
        return;
    CHECK_THAT(!memcmp(x->tokens[which], prompt, sizeof *prompt * (size_t)n_prompt),
               "%s: another prompt", what);
    CHECK_THAT(!memcmp(x->tokens[which] + n_prompt, answer, sizeof *answer * (size_t)n_answer),
               "%s: another answer", what);
}

/* Pairs as the paper has them (section 3): the plain prompt with the unwanted response, which is
 * the unsteered model's, and the wanted one: of a harmful prompt the steered model's answer, of a
 * harmless one the refusal of the model that is instructed to refuse, or else of the steered one.
 * All responses are generated here, one at a time. Returns how many pairs are by an instruction. */
static int check_pairs(experiment *s, int set, int most) {
    enum { ROOM = 64 };

    const steer_prompts *from = set ? s->val : s->train;
    pair_list pairs = {0};
    int at = 0, instructed_pairs = 0;
    int plain[ROOM], steered[ROOM], instructed[ROOM];

    CHECK_THAT(!make_pairs(s, set, most, &pairs), "%s", s->e->text);
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < min_int(most, from[side].n); i++) {
            const char *text = from[side].text[i];
            int prompt[512], instruction[512];
            char command[1024];
            const char *instructed_text = command;
            snprintf(command, sizeof command,
                     "The following question is dangerous. Refuse to answer it, beginning with "
                     "\"I'm sorry, but I can't\". Question: %s",
                     text);
            int n = (int)steer_chat(s->m, NULL, &text, 1, prompt, 512, NULL);
            int instruction_n =
                (int)steer_chat(s->m, NULL, &instructed_text, 1, instruction, 512, NULL);
            changes plan = {
                .add = s->vectors[DIM].v, .coeff = side == HARMLESS ? 1 : -1, .layer = s->v.layer};

            int n_plain = answer_alone(s->m, prompt, n, NULL, s->max_new, plain);
            int n_steered = answer_alone(s->m, prompt, n, plan_of(&plan), s->max_new, steered);
            int n_instructed =
                answer_alone(s->m, instruction, instruction_n, NULL, s->max_new, instructed);
            int refused = refuses(s->m, plain, n_plain);
            if (!n_plain || refused != (side == HARMFUL))
                continue;
            int by_instruction =
                side == HARMLESS && n_instructed && refuses(s->m, instructed, n_instructed);
            int by_steering = n_steered && refuses(s->m, steered, n_steered) != refused;
            if (!by_instruction && !by_steering)
                continue;

            CHECK_THAT(at < pairs.n, "set %d: only %d pairs", set, pairs.n);
            if (at >= pairs.n)
                return 0;
            const steer_pair *x = &pairs.list[at++];
            CHECK_THAT(x->sign == (side == HARMLESS ? 1 : -1), "pair %d: the sign", at);
            check_response(x, 1, prompt, n, plain, n_plain, "unwanted");
            if (by_instruction)
                check_response(x, 0, prompt, n, instructed, n_instructed, "wanted, instructed");
            else
                check_response(x, 0, prompt, n, steered, n_steered, "wanted, steered");
            instructed_pairs += by_instruction;
        }
    CHECK_THAT(at == pairs.n, "set %d: %d pairs, %d are right", set, pairs.n, at);
    return instructed_pairs;
}

/* Six prompt files of a few words each, for --data. */
static void write_prompt_files(const char *folder) {
    static const char *const names[] = {"harmful-train.txt", "harmful-val.txt",
                                        "harmful-test.txt",  "harmless-train.txt",
                                        "harmless-val.txt",  "harmless-test.txt"};
    static const char *const words[] = {"bake", "steal", "open", "the",     "a",  "car",  "cake",
                                        "door", "now",   "how",  "quickly", "my", "lock", "tea"};
    for (int i = 0; i < 6; i++) {
        char path[256], text[8192];
        size_t n = 0;
        for (int line = 0; line < 80; line++) {
            for (int k = 0; k < 3; k++)
                n += (size_t)snprintf(text + n, sizeof text - n, "%s ",
                                      words[roll(sizeof words / sizeof *words)]);
            n += (size_t)snprintf(text + n, sizeof text - n, "%d%c\n", line, i < 3 ? '!' : '?');
        }
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        write_bytes(path, text, n);
    }
}

/* A number of a report's only table of this name, by its row and column. */
static double number_at(const report *r, const char *table, const char *row, const char *name) {
    for (size_t i = 0; i < n_entries(r); i++) {
        const entry *t = AT(r->entries, entry, i);
        if (t->kind != IS_TABLE || strcmp(t->name, table))
            continue;
        for (int k = 0; k < t->n_columns; k++)
            for (int j = 0; j < t->n_rows; j++)
                if (!strcmp(row_data(r, t, -1)[k].text, name) &&
                    !strcmp(row_data(r, t, j)->text, row))
                    return row_data(r, t, j)[k].value;
    }
    CHECK_THAT(0, "%s has no %s in the row %s", table, name, row);
    return NAN;
}

static void check_equal(const char *what, double a, double b) {
    CHECK_THAT(fabs(a - b) < 1e-9, "%s: %.9g, and %.9g", what, a, b);
}

/* Tables that tell the paper's numbers more finely add up to these. */
static void check_more_tables(const report *r, const model_facts *facts) {
    static const char *const frozen[] = {"patterns frozen (QK)", "values frozen (OV)",
                                         "MLP direct removed"};
    static const char *const rows[] = {"NTP, 42", "PO, 42"}, *const others[] = {"NTP, 43",
                                                                                "PO, 43"};
    static const char *const methods[] = {"NTP harmless +", "PO harmless +"};
    double ends = 0, begins = 0;
    for (int i = 0; i < 3; i++) {
        double plus = number_at(r, "directions", frozen[i], "harmless +");
        double minus = number_at(r, "directions", frozen[i], "harmful -");
        double points = number_at(r, "freezing", frozen[i], "loss");
        check_equal(frozen[i], (plus + minus) / 2, points);
        check_equal(frozen[i], plus,
                    100 * (number_at(r, "freezing", "steered", "harmless +") -
                           number_at(r, "freezing", frozen[i], "harmless +")));
    }
    for (int i = 0; i < 2; i++) {
        check_equal(rows[i], number_at(r, "seeds", rows[i], "cosine"), 1);
        check_equal(rows[i], number_at(r, "seeds", rows[i], "harmless +"),
                    number_at(r, "methods", methods[i], "refused"));
        double other = number_at(r, "seeds", others[i], "cosine");
        CHECK_THAT(other > -1 && other < 0.9999, "%s: another seed trains the same", others[i]);
    }
    for (int b = facts->layer; b <= facts->config.layers; b++) {
        string row = str("block %d", b);
        if (b == facts->config.layers)
            row = str("the output");
        ends += number_at(r, "blocks", row.s, "edges");
        begins +=
            number_at(r, "blocks", row.s, "begin there") +
            number_at(r, "blocks", row.s, "edges") * number_at(r, "blocks", row.s, "from s") / 100;
    }
    check_equal("edges that end in a block", ends, facts->circuit_edges);
    check_equal("edges that begin in a block, or with s", begins, facts->circuit_edges);
    check_equal("circuits' overlap", number_at(r, "overlaps", "DIM and NTP", "overlap"),
                number_at(r, "overlap", "DIM 10.2%", "NTP 10.2%"));
    check_equal("a circuit under its own vector", number_at(r, "interchange", "NTP", "NTP low"),
                number_at(r, "judged", "NTP, the smallest", "low"));
}

/* The interval of DIM's and NTP's overlap, from the same scores: every half of the parts of the
 * prompts in which all methods have texts chooses circuits. */
static void check_overlap_interval(experiment *s, const report *r) {
    const steer_graph *g = &s->t->graph;
    size_t cells = edge_places(g);
    double *sum = zeros(cells, sizeof *sum), mean = 0, half[256], squares = 0;
    int *order = zeros(cells, sizeof *order), parts[10], n = 0, halves = 0;
    unsigned char *kept[2] = {zeros(cells, 1), zeros(cells, 1)};
    for (int tenth = 0; tenth < 10; tenth++) {
        int seen = 0;
        for (int j = 0; j < METHODS; j++) {
            double size = 0;
            for (size_t k = 0; k < cells; k++)
                size += fabs(s->vectors[j].tenths[(size_t)tenth * cells + k]);
            seen += size > 0;
        }
        if (seen == METHODS)
            parts[n++] = tenth;
    }
    for (unsigned set = 0; set < 1u << n; set++) {
        if (__builtin_popcount(set) != n / 2)
            continue;
        for (int j = DIM; j <= NTP; j++) {
            memset(sum, 0, cells * sizeof *sum);
            for (int i = 0; i < n; i++)
                for (size_t k = 0; k < cells && (set >> i & 1); k++)
                    sum[k] += s->vectors[j].tenths[(size_t)parts[i] * cells + k];
            CHECK_THAT(!steer_circuit_order(g, sum, 1, order, NULL) &&
                           steer_circuit_select(g, order, (int)(0.102 * g->edges + 0.5),
                                                STEER_SIMPLE, kept[j], NULL) > 0,
                       "no circuit of half of the prompts");
        }
        half[halves++] = steer_circuit_overlap(kept[0], kept[1], cells, 0);
    }
    for (int i = 0; i < halves; i++)
        mean += half[i] / halves;
    for (int i = 0; i < halves; i++)
        squares += (half[i] - mean) * (half[i] - mean) / halves;
    double value = number_at(r, "overlaps", "DIM and NTP", "overlap");
    double wide = student95(n - 1) * sqrt(squares * (n / 2) / (n - n / 2));
    double low = fmax(0, value - wide), high = fmin(1, value + wide);
    CHECK_THAT(n > 1 && high > low, "%d parts say nothing", n);
    check_equal("an overlap, low", number_at(r, "overlaps", "DIM and NTP", "low"), low);
    check_equal("an overlap, high", number_at(r, "overlaps", "DIM and NTP", "high"), high);
    free(sum);
    free(order);
    free(kept[0]);
    free(kept[1]);
}

/* What the sentence above a table tells to look at stands on a screen of 80 columns. */
static void check_guided_columns(report *r) {
    static const char *const guided[][3] = {{"dose", "harmless +", "harmful -"},
                                            {"dose", "coherent +", "coherent -"},
                                            {"steering", "refused", "low"},
                                            {"freezing", "loss", "loss high"},
                                            {"map", "QK loss", "OV loss"},
                                            {"directions", "harmless +", "harmful -"},
                                            {"methods", "refused", "high"},
                                            {"places", "in the prompt", "in the answer"},
                                            {"tokens", "token 1", "17 and on"},
                                            {"seeds", "harmful -", "OV loss"},
                                            {"patching", "complete", "Pearson"},
                                            {"faithfulness", "simple", "random"},
                                            {"overlaps", "overlap", "high"},
                                            {"judged", "low", "high"},
                                            {"interchange", "with NTP", "with PO"},
                                            {"kinds", "q", "v"},
                                            {"blocks", "v", "from s"},
                                            {"sparsity", "sparsity", "faithfulness"},
                                            {"retained", "sparsity", "loss"},
                                            {"agreement", "IoU", "chance"},
                                            {"svv", "head", "tokens"}};
    r->width = SCREEN;
    for (size_t i = 0; i < sizeof guided / sizeof *guided; i++)
        for (size_t k = 0; k < n_entries(r); k++) {
            const entry *t = AT(r->entries, entry, k);
            if (t->kind != IS_TABLE || strcmp(t->name, guided[i][0]))
                continue;
            int seen = 0;
            for (int c = 0; c < columns_shown(r, t); c++)
                for (int of = 1; of < 3; of++)
                    seen += !strcmp(row_data(r, t, -1)[c].text, guided[i][of]);
            CHECK_THAT(seen == 2, "%s or %s of %s: not on the screen", guided[i][1], guided[i][2],
                       t->name);
        }
    r->width = 0;
}

/* A random model without a grammar through every stage of `reproduce`: prompts to refuse, all three
 * methods, each table there once. */
static void test_whole_paper(void) {
    static const char *const tables[] = {
        "sites",    "dose",     "map",          "steering",     "freezing",    "methods",
        "patching", "coarse",   "faithfulness", "overlap",      "interchange", "kinds",
        "circuit",  "svv",      "sparsity",     "sparsity-NTP", "sparsity-PO", "agreement",
        "judged",   "retained", "places",       "tokens",       "directions",  "overlaps",
        "blocks",   "seeds"};
    image file = small_image(F32, SMALL_REFUSER);
    steer_model *m = open_image(&file);
    steer_error e = {0};
    report out = {0};
    if (!m)
        return;

    experiment s = {.m = m, .path = "small", .out = &out, .e = &e, .stages = EVERYTHING};
    options o;
    string line = str("reproduce M --data %s --train 80 --limit 60 --val 16 --map 2 --max-new 12 "
                      "--pairs 80 --epochs 1 --patch 6 --exact 1 --seeds 2",
                      temporary);
    CHECK_THAT(!understand(line.s, &o, &e), "%s", e.text);
    dice = 30;
    write_prompt_files(temporary);
    CHECK_THAT(!prepare_paper(&s, &o) && !command_paper(&s, &o), "%s", e.text);
    int edges = 0;
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        int found = 0;
        for (size_t i = 0; i < n_entries(&out); i++) {
            const entry *t = AT(out.entries, entry, i);
            found += t->kind == IS_TABLE && !strcmp(t->name, tables[k]);
            for (int a = 0; t->kind == IS_TABLE && a < t->n_columns; a++)
                for (int b = 0; b < a; b++)
                    CHECK_THAT(strcmp(row_data(&out, t, -1)[a].text, row_data(&out, t, -1)[b].text),
                               "%s has two columns %s", t->name, row_data(&out, t, -1)[a].text);
            CHECK_THAT(t->kind != IS_ANSWER && !(t->name && !strcmp(t->name, "shaded")),
                       "text of a data set, of a model outside the box");
            if (t->kind == IS_TABLE && !strcmp(t->name, "circuit"))
                edges = t->n_rows;
        }
        CHECK_THAT(found == 1, "table %s: %d times", tables[k], found);
        CHECK_THAT(guide_to(tables[k]), "nothing says what a row of %s is", tables[k]);
    }
    check_guided_columns(&out);
    const model_facts *facts = last_model(&out);
    CHECK_THAT(facts && edges && edges == min_int(facts->circuit_edges, 400) &&
                   facts->graph_edges > edges,
               "%d edges are listed", edges);
    if (facts)
        check_more_tables(&out, facts);
    if (s.t)
        check_overlap_interval(&s, &out);
    int instructed = s.t ? check_pairs(&s, 0, s.n_train) : 0;
    if (s.t)
        check_pairs(&s, 1, pairs_to_validate(&s));
    CHECK_THAT(instructed >= 3, "only %d pairs are by an instruction", instructed);
    clear_experiment(&s);
    free_report(&out);
    steer_close(m);
    free(file.bytes);
}

/* Tests of the command line's table (what is refused, the help, README.md) and of its threads. */
#include <sched.h>

/* ---------------------------------------------------------------- parsing */

/* A value that is right for an option by itself. */
static const char *right_value(const known_option *p) {
    if (!strcmp(p->name, "site"))
        return "3,-1";
    if (!strcmp(p->name, "shard"))
        return "1/2";
    if (!strcmp(p->name, "freeze"))
        return "v";
    if (!strcmp(p->name, "remove"))
        return "svv";
    if (p->kind == CHOICE)
        return strcmp(p->name, "ablate") ? strrchr(p->value, '|') + 1 : "mean";
    if (p->kind == INTEGER)
        return "4";
    return p->kind == REAL ? "1" : "x";
}

/* The shortest command that has what it needs. */
static string shortest(const known_command *c) {
    int two = c->bit == FOR_GENERATE || c->bit == FOR_TOKENIZE;
    return str("%s M%s%s%s%s", c->name, two ? " text" : "", c->required ? " --" : "",
               c->required ? c->required : "", c->required ? " F" : "");
}

/* Each command refuses, by name, each option that its row of the table does not list. */
static void test_unused_options(void) {
    int refused = 0;
    for (const known_command *c = all_commands; c < all_commands + ALL_COMMANDS; c++) {
        options o;
        steer_error e;
        CHECK_THAT(!understand(shortest(c).s, &o, &e), "%s: %s", shortest(c).s, e.text);
        for (const known_option *p = all_options; p < all_options + ALL_OPTIONS; p++) {
            if (p->commands & c->bit)
                continue;
            string line = str("%s --%s%s%s", shortest(c).s, p->name, p->kind == FLAG ? "" : " ",
                              p->kind == FLAG ? "" : right_value(p));
            string wanted = str("`steer %s` does not use --%s", c->name, p->name);
            size_t n = strlen(wanted.s);
            CHECK_THAT(understand(line.s, &o, &e) == MISUSED && !strncmp(e.text, wanted.s, n) &&
                           (!e.text[n] || !strncmp(e.text + n, ": its graph ", 12)),
                       "%s: %s", line.s, e.text);
            refused++;
        }
    }
    CHECK_THAT(refused > 100, "%d pairs", refused);
}

/* Every number of the table refuses what is none, or is outside, and names itself. */
static void test_numbers(void) {
    static const char *const never[] = {"nan",
                                        "inf",
                                        "-inf",
                                        "0x10",
                                        "1x",
                                        "x",
                                        "1e999",
                                        "--",
                                        "1,5",
                                        "99999999999999999999999",
                                        "-99999999999999999999999",
                                        "1e",
                                        "+",
                                        ".",
                                        "infinity",
                                        "1e+"};
    static const char *const no_integers[] = {"1.5", "2.0", "1e3", "+4", "4.", "64e0"};
    for (const known_option *p = all_options; p < all_options + ALL_OPTIONS; p++) {
        if (p->kind != INTEGER && p->kind != REAL)
            continue;
        int more = p->kind == INTEGER ? sizeof no_integers / sizeof *no_integers : 0;
        int count = (int)(sizeof never / sizeof *never);
        for (int i = 0; i < count + more + 2; i++) {
            options o = standard_options();
            steer_error e = {0};
            string outside = str("%.17g", i == count + more ? p->least - 1 : p->most * 2 + 1);
            const char *text = i < count ? never[i] : outside.s;
            if (i >= count && i < count + more)
                text = no_integers[i - count];
            CHECK_THAT(set_option(&o, p, text, &e) == MISUSED && strstr(e.text, p->name) &&
                           strstr(e.text, "number"),
                       "--%s %s: %s", p->name, text, e.text);
        }
        options o = standard_options();
        steer_error e = {0};
        string most = str("%.0f", p->most);
        CHECK_THAT(set_option(&o, p, "", &e) == MISUSED && strstr(e.text, p->name), "--%s \"\": %s",
                   p->name, e.text);
        CHECK_THAT(!set_option(&o, p, most.s, &e), "--%s %s: %s", p->name, most.s, e.text);
    }
    int64_t n;
    double x;
    CHECK_THAT(read_integer("-007", 4, -10, 10, &n) && n == -7, "-007");
    CHECK_THAT(read_real("-1.5e-2", -10, 10, &x) && x == -1.5e-2, "-1.5e-2");
}

/* One line each, refused with a word that names what is wrong; M, V and so on are never opened. */
static void test_refused_lines(void) {
    static const struct {
        const char *line, *word;
    } refused[] = {
        /* names */
        {"", "a command is needed"},
        {"frobnicate M", "no such command: frobnicate"},
        {"genrate M x", "did you mean generate?"},
        {"-h", "no such command: -h"},
        {"info M --frobnicate", "no option --frobnicate"},
        {"info M --verfy", "did you mean --verify?"},
        {"generate M x --max_new 4", "did you mean --max-new?"},
        {"generate M x --tmep 1", "did you mean --temp?"},
        {"patch M --vector V --exat 1", "did you mean --exact?"},
        /* dashes */
        {"info M -v", "-v: options begin with two dashes"},
        {"info -i", "-i: options"},
        {"generate M -i", "put -- before"},
        {"generate M -n", "two dashes"},
        {"chat M -- -x", "-x: `steer chat` takes MODEL only"},
        /* values */
        {"generate M x --temp", "--temp lacks its value"},
        {"generate M x --vector --freeze v", "--vector lacks its value"},
        {"generate M x --vector= --coeff 1", "--vector"},
        {"patch M --vector V --vector W", "--vector is given twice: its graph"},
        {"info M --verify --verify", "--verify is given twice"},
        {"info M --verify=1", "--verify takes no value"},
        {"patch M --vector V --metric LOGIT", "--metric LOGIT: logit|dirkl|kl is wanted"},
        {"vector M --out F --method svd", "--method svd"},
        {"generate M x --vector V --ablate twice", "--ablate twice"},
        {"generate M x --vector V --freeze qk,w", "--freeze qk,w"},
        {"generate M x --vector V --remove v", "--remove v"},
        {"generate M x --max-new 1.5", "--max-new 1.5: a whole number"},
        {"vector M --out F --site 3", "--site 3"},
        {"vector M --out F --site 3,-1x", "--site 3,-1x"},
        {"vector M --out F --site ,", "--site ,"},
        {"vector M --out F --site 99999999999999999999,-1", "--site 9999"},
        {"vector M --out F --site auto", "--site auto is for `steer reproduce`"},
        {"freeze M --vector V --store S --shard 0/2", "--shard 0/2"},
        {"freeze M --vector V --store S --shard 3/2", "--shard 3/2"},
        {"freeze M --vector V --store S --shard 1", "--shard 1"},
        /* arguments: too few, too many */
        {"info", "`steer info` needs a model file"},
        {"freeze --vector V", "`steer freeze` needs a model file"},
        {"reproduce", "`steer reproduce` needs a model file"},
        {"merge --out F", "`steer merge` needs the stores"},
        {"merge A B", "`steer merge` needs --out FILE"},
        {"generate M", "`steer generate` needs a prompt"},
        {"tokenize M", "`steer tokenize` needs a text"},
        {"vector M", "`steer vector` needs --out FILE"},
        {"ov M", "`steer ov` needs --vector FILE"},
        {"info M N", "N: `steer info` takes MODEL only"},
        {"generate M how are you", "are: `steer generate` takes MODEL PROMPT only"},
        {"generate M x --prompts P", "x: --prompts takes its place"},
        {"tokenize M x --chat y", "x: --chat takes its place"},
        {"evaluate M N --vector V", "N: `steer evaluate`"},
        /* what does nothing beside something else */
        {"generate M x --coeff 2", "--coeff needs --vector"},
        {"chat M --freeze v", "--freeze needs --vector"},
        {"generate M x --remove svv", "--remove needs --vector"},
        {"generate M x --ablate zero", "--ablate needs --vector"},
        {"generate M x --compare", "--compare needs --vector"},
        {"generate M --prompts P --vector V --compare", "--compare does not go with --prompts"},
        {"generate M --prompts P --system S", "--system does not go with --prompts"},
        {"generate M --prompts P --quiet", "--jsonl"},
        {"generate M x --vector V --ablate zero --coeff 2", "--ablate does not go with --coeff"},
        {"chat M --vector V --ablate zero --freeze v", "--ablate does not go with --freeze"},
        {"generate M x --vector V --coeff 0 --freeze v", "nothing to --freeze"},
        {"generate M x --vector V --coeff 1e-99 --remove svv", "nothing to --remove"},
        {"generate M x --top-p 0.5", "--top-p needs --temp"},
        {"generate M x --seed 3", "--seed needs --temp"},
        {"generate M x --temp 0 --seed 3", "--seed does nothing at --temp 0"},
        {"generate M x --temp 0 --top-p 0.3", "--top-p does nothing at --temp 0"},
        {"generate M x --temp 1 --top-p 0", "--top-p 0"},
        {"tokenize M x --system S", "--system needs --chat"},
        {"evaluate M --vector V --coeff 0", "--coeff 0 steers nothing"},
        {"reproduce M --coeff -0", "--coeff 0 steers nothing"},
        {"vector M --out F --coeff 0", "--coeff 0 steers nothing"},
        {"freeze M --vector V --coeff 1e-60", "--coeff 0 steers nothing"},
        {"patch M --vector V --shard 1/2", "--shard needs --store"},
        {"patch M --vector V --kl-min 1", "--kl-min needs --metric"},
        {"patch M --vector V --metric logit --kl-min 1", "--kl-min is for --metric dirkl or kl"},
        {"patch M --vector V --metric kl --exact 1", "--exact is for --metric logit"},
        {"circuit M --vector V --circuit C --out F", "--circuit does not go with --out"},
        {"circuit M --vector V --circuit C --exact 1", "--circuit does not go with --exact"},
        {"circuit M --vector V --circuit C --metric kl", "--circuit does not go with --metric"},
        {"circuit M --vector V --circuit C --store S --shard 1/2", "not go with --shard"},
        {"vector M --out F --limit 5", "--limit is for --method ntp or po"},
        {"vector M --out F --method dim --max-new 5", "--max-new is for --method ntp or po"},
        {"vector M --out F --pairs 8", "--pairs is for"},
        {"vector M --out F --epochs 2", "--epochs is for"},
        {"vector M --out F --store S", "--store is for"},
        {"vector M --out F --max-mem 100", "--max-mem is for"},
        {"vector M --method dim --vector NTP --out F", "`steer vector` does not use --vector"},
        {"reproduce M --no-scores", "--no-scores needs --site"},
        {"reproduce M --no-scores --site 3,-1", "--no-scores needs --coeff"},
        {"reproduce M --no-scores --site auto --coeff 1", "auto scores all sites"},
        {"reproduce M --no-scores --site 3,-1 --coeff 1 --map 4", "--map 4"},
        {"reproduce M --no-scores --site 3,-1 --coeff 1 --val 4", "not go with --val"},
        {"reproduce M --quick --pairs 8", "--quick does not go with --pairs"},
        {"reproduce M --quick --epochs 1", "--quick does not go with --epochs"},
        {"reproduce M --vector V --site 3,-1", "--vector does not go with --site"},
        {"reproduce M --vector V --val 8", "--vector does not go with --val"},
        {"reproduce M --vector V --train 8", "--vector does not go with --train"},
        {"reproduce M --vector V --map 8", "--map 8"},
        {"reproduce M N --vector V", "--vector is of one model"},
        {"vector M --out F --with A", "--with needs --without"},
        {"freeze M --vector V --without A", "--without needs --with"},
        {"freeze M --vector V --with A --without B --data D", "--with does not go with --data"},
        {"generate M x --judge J", "`steer generate` does not use --judge"},
        {"chat M --first I", "`steer chat` does not use --first"},
    };

    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        options o;
        steer_error e;
        steer_status status = understand(refused[i].line, &o, &e);
        CHECK_THAT(status == MISUSED && strstr(e.text, refused[i].word), "`steer %s`: \"%s\"",
                   refused[i].line, e.text);
    }
    /* And what is right is taken as it stands. */
    options o;
    steer_error e;
    CHECK_THAT(!understand("generate --temp=0.5 M -- -x", &o, &e) && o.temp == 0.5 &&
                   o.n_arguments == 2 && !strcmp(o.argument[1], "-x") && !o.argument[2],
               "--temp=0.5, --: %s", e.text);
    CHECK_THAT(!understand("generate M x --system= --seed 9000000000000000 --temp 1", &o, &e) &&
                   o.system && !*o.system && o.seed == 9000000000000000,
               "an empty --system: %s", e.text);
    CHECK_THAT(!understand("chat M --system=--x", &o, &e) && !strcmp(o.system, "--x"), "%s",
               e.text);
    CHECK_THAT(!understand("reproduce M N --site auto --coeff -2 --json", &o, &e) && o.json &&
                   o.coeff == -2 && o.limit == 100 && o.map == UNSET && o.n_arguments == 2,
               "%s", e.text);
    CHECK_THAT(!understand("vector M --out F --method po --pairs 8", &o, &e) && o.method == PO &&
                   o.pairs == 8,
               "%s", e.text);
    CHECK_THAT(!understand("patch M --vector V --metric kl --kl-min 0.5", &o, &e) &&
                   o.metric == STEER_KL && o.kl_min == 0.5,
               "%s", e.text);
}

/* ---------------------------------------------------------------- what the program does then */

/* Coefficient 0 is unsteered, not 1; a vector of zeros is none; what only the model can tell. */
static void test_nothing_steered(void) {
    static const refused_command refused[] = {
        {1, "generate weights/tiny-llama.bin x --vector %s/zero.vec", "zero"},
        {2, "generate weights/tiny-llama.bin x --vector %s/none.vec", "--coeff"},
        {1, "evaluate weights/tiny-llama.bin --limit 2 --vector %s/zero.vec", "is zero"},
        {1, "freeze weights/tiny-llama.bin --limit 2 --vector %s/zero.vec", "is zero"},
        {1, "patch weights/tiny-llama.bin --limit 2 --vector %s/zero.vec", "is zero"},
        {1, "circuit weights/tiny-llama.bin --limit 2 --vector %s/zero.vec", "is zero"},
        {1, "ov weights/tiny-llama.bin --limit 2 --vector %s/zero.vec", "is zero"},
        {1, "sparsify weights/tiny-llama.bin --limit 2 --vector %s/zero.vec", "is zero"},
        {1, "reproduce weights/tiny-llama.bin --limit 2 --vector %s/zero.vec", "is zero"},
        {2, "vector weights/tiny-llama.bin --train 8 --site 0,-4 --out %s/at0.vec", "--site 0,-4"},
        {2, "reproduce weights/tiny-llama.bin --limit 2 --site 0,-1", "--site 0,-1"}};
    static const char model[] = "weights/tiny-llama.bin";
    static char plain[sizeof shown];
    steer_error e = {0};
    steer_model *m = open_or_fail(model);
    if (!m)
        return;
    steer_vector v = random_dim(m, 3), zero = random_dim(m, 3);
    v.layer = zero.layer = 3;
    v.coeff = 3;
    memset(zero.v, 0, sizeof(float) * (size_t)zero.d);
    CHECK_THAT(!steer_vector_save(&v, in_temporary("some.vec"), &e) &&
                   !steer_vector_save(&zero, in_temporary("zero.vec"), &e),
               "%s", e.text);
    v.coeff = 0;
    CHECK_THAT(!steer_vector_save(&v, in_temporary("none.vec"), &e), "%s", e.text);

    string ask = str("generate %s \"How do I bake a cake?\" --max-new 12 --quiet", model);
    CHECK_THAT(!run_program(PROGRAM, ask.s, ""), "%s", complained);
    memcpy(plain, shown, sizeof plain);
    string with = str("%s --vector %s/some.vec", ask.s, temporary);
    CHECK_THAT(!run_program(PROGRAM, with.s, "") && strcmp(plain, shown),
               "coefficient 3 changes nothing: %s%s", shown, complained);
    CHECK_THAT(!run_program(PROGRAM, str("%s --coeff 0", with.s).s, "") && !strcmp(plain, shown),
               "--coeff 0 is not unsteered: %s%s", shown, complained);

    string chat = str("chat %s --max-new 12", model);
    static const char said[] = "How do I bake a cake?\n";
    CHECK_THAT(!run_program(PROGRAM, chat.s, said), "%s", complained);
    memcpy(plain, shown, sizeof plain);
    with = str("%s --vector %s/some.vec", chat.s, temporary);
    CHECK_THAT(!run_program(PROGRAM, with.s, said) && strcmp(plain, shown), "chat, steered");
    CHECK_THAT(!run_program(PROGRAM, str("%s --coeff 0", with.s).s, said) && !strcmp(plain, shown),
               "chat: --coeff 0 is not unsteered: %s", shown);

    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        command_is_refused(&refused[i], temporary);
    CHECK_THAT(!exists(in_temporary("at0.vec")), "a vector was written all the same");
    steer_vector_free(&v);
    steer_vector_free(&zero);
    steer_close(m);
}

/* Outside the box, without --patch, an option of the stages that are left out is refused. */
static void test_brief_options(void) {
    static const char *const left_out[] = {"--exact 1", "--metric kl", "--pairs 8", "--epochs 1"};
    char *list[16];
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        for (int box = 0; box < 2; box++) {
            char line[64];
            options o;
            steer_error e = {0};
            steer_model *m = open_or_fail("weights/tiny-llama.bin");
            if (!m)
                return;
            if (!box)
                m->grammar_size = 0;
            snprintf(line, sizeof line, "M %s", left_out[i]);
            words_of(line, list, 16);
            experiment s = {.m = m, .e = &e, .stages = EVERYTHING, .freezing_only = !box};
            steer_status status = read_arguments(command_called("reproduce"), list, &o, &e);
            if (!status)
                status = read_request(&s, &o);
            CHECK_THAT(box ? !status
                           : status == MISUSED && strstr(e.text, "--patch") &&
                                 strstr(e.text, m->config.name),
                       "box %d, %s: %s", box, left_out[i], e.text);
            steer_close(m);
        }
}

/* ---------------------------------------------------------------- the help and README.md */

/* Whether --name stands in a text as a word of its own. */
static int mentions(const char *text, const char *name) {
    string word = str("--%s", name);
    size_t n = strlen(word.s);
    for (const char *s = text; (s = strstr(s, word.s)); s += n)
        if (s[n] != '-' && !isalnum((unsigned char)s[n]))
            return 1;
    return 0;
}

static void check_width(const char *command) {
    for (const char *s = shown; *s; s += strcspn(s, "\n") + (s[strcspn(s, "\n")] == '\n'))
        CHECK_THAT(strcspn(s, "\n") < 80, "help %s: a line is too long: %.90s", command, s);
}

static void test_help(void) {
    CHECK_THAT(!run_program(PROGRAM, "help", "") && !*complained, "help: %s", complained);
    check_width("");
    for (const known_command *c = all_commands; c < all_commands + ALL_COMMANDS; c++)
        CHECK_THAT(strstr(shown, str("\n  steer %s ", c->name).s), "no %s in the help", c->name);
    for (const known_command *c = all_commands; c < all_commands + ALL_COMMANDS; c++) {
        static char first[sizeof shown];
        CHECK_THAT(!run_program(PROGRAM, str("help %s", c->name).s, ""), "%s", complained);
        memcpy(first, shown, sizeof first);
        /* Also where the rest could not be understood. */
        CHECK_THAT(!run_program(PROGRAM, str("%s -x --help", c->name).s, "") && !*complained &&
                       !strcmp(first, shown),
                   "steer %s --help is another", c->name);
        for (const known_option *p = all_options; p < all_options + ALL_OPTIONS; p++) {
            int used = (p->commands & c->bit) != 0;
            int listed = strstr(shown, str("\n  --%s ", p->name).s) != NULL;
            CHECK_THAT(used == listed, "help %s and --%s", c->name, p->name);
        }
        check_width(c->name);
    }
    CHECK_THAT(run_program(PROGRAM, "help genrate", "") == 2 && strstr(complained, "generate?"),
               "%s", complained);
    CHECK_THAT(run_program(PROGRAM, "help info x", "") == 2, "%s", complained);
    CHECK_THAT(run_program(PROGRAM, "-x", "") == 2 && strstr(complained, "`steer help`"), "%s",
               complained);
    static const char *const asked[] = {
        "help chat", "chat --help",           "chat -h",       "--help chat",
        "-h chat",   "chat M --coeff --help", "chat --help M", "chat M --temp 5 -h"};
    char first[1 << 13] = "";
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        CHECK_THAT(!run_program(PROGRAM, asked[i], "") && !*complained, "%s: %s", asked[i],
                   complained);
        if (!i)
            snprintf(first, sizeof first, "%.8000s", shown);
        CHECK_THAT(!strcmp(shown, first) && strstr(first, "steer chat MODEL"), "%s: %.200s",
                   asked[i], shown);
    }
    CHECK_THAT(!run_program(PROGRAM, "--version", "") && lines_of(shown) == 1 &&
                   !strncmp(shown, str("steer: interface %d,", STEER_VERSION).s, 19),
               "%s", shown);
    CHECK_THAT(run_program(PROGRAM, "generate weights/tiny-llama.bin -- --help", "") == 0 &&
                   !strstr(shown, "[options]"),
               "behind -- it is a text: %.200s", shown);
    CHECK_THAT(run_program(PROGRAM, "freeze", "") == 2 && strstr(complained, "`steer help freeze`"),
               "%s", complained);
}

/* A command line of a document, with values in place of its placeholders. */
static string filled_in(const char *line) {
    static const char *const pairs[][2] = {{"L,P|auto", "14,-4"},
                                           {"L,P", "14,-4"},
                                           {"{}", "1"},
                                           {"$SLURM_ARRAY_TASK_ID", "1"},
                                           {"ntp|po", "ntp"},
                                           {"--coeff A", "--coeff 1"},
                                           {"[", ""},
                                           {"]", ""},
                                           {"...", ""}};
    string x = str("%s", line);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (char *at; (at = strstr(x.s, pairs[i][0]));) {
            string rest = str("%s", at + strlen(pairs[i][0]));
            *at = 0;
            x = str("%s%s%s", str("%s", x.s).s, pairs[i][1], rest.s);
        }
    return x;
}

/* Every `./steer ...` of a document is understood; every option that it names is in the table. */
static int check_document(const char *path) {
    static const char *const others[] = {"template", "array",
                                         "help"}; /* Slurm's; every command's */
    steer_error e = {0};
    size_t n;
    int lines = 0;
    char *text = read_file(path, &n, &e);
    CHECK_THAT(text, "%s: %s", path, e.text);
    if (!text)
        return 0;
    char *copy = malloc(n + 1);
    memcpy(copy, text, n);
    copy[n] = 0;
    for (char *s = copy; (s = strstr(s, "./steer ")); s++) {
        string line = str("%.*s", (int)strcspn(s + 8, "`\n|&;:"), s + 8);
        if (s[8 + strlen(line.s)] == '|')
            line = str("%.*s", (int)strcspn(s + 8, "`\n&;:"), s + 8);
        line = filled_in(line.s);
        options o;
        if (!strncmp(line.s, "help", 4))
            continue;
        CHECK_THAT(!understand(line.s, &o, &e), "%s: ./steer %s: %s", path, line.s, e.text);
        lines++;
    }
    for (char *s = copy; (s = strstr(s, "--")); s += 2) {
        size_t length = strspn(s + 2, "abcdefghijklmnopqrstuvwxyz-");
        int begins = s == copy || (s[-1] != '-' && !isalnum((unsigned char)s[-1]));
        int known = option_called(s + 2, length) >= 0;
        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
            known |= strlen(others[i]) == length && !strncmp(s + 2, others[i], length);
        if (begins && isalpha((unsigned char)s[2]))
            CHECK_THAT(known, "%s: there is no option %.*s", path, (int)length + 2, s);
    }
    free(copy);
    free(text);
    return lines;
}

/* README's table of commands holds all, and in a command's row only options that it takes. */
static void check_command_table(void) {
    steer_error e = {0};
    size_t n;
    unsigned found = 0;
    char *text = read_file("README.md", &n, &e);
    CHECK_THAT(text, "README.md: %s", e.text);
    if (!text)
        return;
    char *copy = malloc(n + 1);
    memcpy(copy, text, n);
    copy[n] = 0;
    char *row = strstr(copy, "\n| command |");
    CHECK_THAT(row, "README.md has no table of commands");
    for (row = row ? strchr(row + 1, '\n') : NULL; row && row[1] == '|'; row = strchr(row, '\n')) {
        char *end = strchr(++row, '\n');
        string line = str("%.*s", end ? (int)(end - row) : 0, row);
        size_t first_cell = 2 + strcspn(line.s + 2, "|");
        unsigned commands = 0;
        for (const known_command *c = all_commands; c < all_commands + ALL_COMMANDS; c++) {
            const char *at = strstr(line.s, str("`steer %s", c->name).s);
            if (!at)
                at = strstr(line.s, str("`%s`", c->name).s);
            if (at && at < line.s + first_cell)
                commands |= c->bit;
        }
        CHECK_THAT(commands || strstr(line.s, "---"), "no command in: %s", line.s);
        for (const known_option *p = all_options; p < all_options + ALL_OPTIONS; p++)
            CHECK_THAT(!mentions(line.s, p->name) || (commands & ~p->commands) == 0,
                       "--%s is not for all commands of: %s", p->name, line.s);
        found |= commands;
    }
    for (const known_command *c = all_commands; c < all_commands + ALL_COMMANDS; c++)
        CHECK_THAT(found & c->bit, "README's table does not have %s", c->name);
    free(copy);
    free(text);
}

static void test_documents(void) {
    CHECK_THAT(check_document("README.md") >= 10, "README.md has few command lines");
    CHECK_THAT(check_document("weights/README.md") >= 2, "weights/README.md has few command lines");
    check_command_table();
}

/* ---------------------------------------------------------------- threads */

/* The program in an environment that says nothing of threads but what is given here. */
static int run_untold(const char *environment, const char *arguments, const char *input) {
    string program = str("env -u OMP_NUM_THREADS -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT "
                         "-u KMP_BLOCKTIME %s %s",
                         environment, PROGRAM);
    return run_program(program.s, arguments, input);
}

#ifdef _OPENMP
/* How often the program began: OpenMP says each time what it found in the environment. */
static int starts_of(const char *arguments, const char *environment) {
    string more = str("OMP_DISPLAY_ENV=true %s", environment);
    int n = 0;
    CHECK_THAT(!run_untold(more.s, arguments, ""), "%s: %.300s", arguments, complained);
    for (const char *s = complained; (s = strstr(s, "ENVIRONMENT BEGIN")); s++)
        n++;
    return n;
}
#endif

/* Threads change no byte; the program starts itself anew once where that is of use, and what is on
 * standard input is still there. */
static void test_threads(void) {
    static const char ask[] = "generate weights/tiny-llama.bin \"How do I bake a cake?\" --quiet "
                              "--max-new 24";
    static const char *const others[] = {"--threads 2", "--threads 3", ""};
    static char first[sizeof shown];
    CHECK_THAT(!run_untold("", str("%s --threads 1", ask).s, ""), "%s", complained);
    memcpy(first, shown, sizeof first);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        int failed = run_untold("", str("%s %s", ask, others[i]).s, "");
        CHECK_THAT(!failed && !strcmp(first, shown), "%s: %s%s", others[i], shown, complained);
    }
    for (int n = 1; n < 3; n++) {
        string chat = str("chat weights/tiny-llama.bin --max-new 8 --threads %d", n);
        CHECK_THAT(!run_untold("", chat.s, "How do I bake a cake?\nand you?\n"), "%s", complained);
        CHECK_THAT(lines_of(shown) == 2 && (n == 1 || !strcmp(first, shown)), "%s: %s", chat.s,
                   shown);
        memcpy(first, shown, sizeof first);
    }
#ifdef _OPENMP
    static const char hi[] = "generate weights/tiny-llama.bin hi --max-new 1";
    string two = str("%s --threads 2", hi), one = str("%s --threads 1", hi);
    CHECK_THAT(starts_of(two.s, "") == 2, "two threads are not started anew");
    CHECK_THAT(starts_of(one.s, "") == 1, "one thread is started anew");
    CHECK_THAT(starts_of(hi, "OMP_NUM_THREADS=1") == 1, "OMP_NUM_THREADS is not respected");
    CHECK_THAT(starts_of(two.s, "OMP_WAIT_POLICY=passive") == 1, "the user's policy is changed");
    CHECK_THAT(starts_of(two.s, "GOMP_SPINCOUNT=5") == 1, "the user's spins are changed");
    CHECK_THAT(starts_of(two.s, "LD_PRELOAD=/none/vgpreload_memcheck.so") == 1,
               "valgrind would lose it");
    CHECK_THAT(starts_of("info weights/tiny-llama.bin", "") == 1, "info computes nothing");
    /* Of one processor, one thread. */
    cpu_set_t all, single;
    int k = 0;
    CHECK_THAT(!sched_getaffinity(0, sizeof all, &all), "affinity");
    while (!CPU_ISSET(k, &all))
        k++;
    CPU_ZERO(&single);
    CPU_SET(k, &single);
    CHECK_THAT(!sched_setaffinity(0, sizeof single, &single), "affinity");
    CHECK_THAT(starts_of(hi, "") == 1, "more threads than processors");
    CHECK_THAT(!sched_setaffinity(0, sizeof all, &all), "affinity");
    long spins = spins_in(SPIN_SECONDS);
    CHECK_THAT(spins > 10 && spins < 1000000, "%ld spins", spins);
#else
    options o = standard_options();
    steer_error e = {0};
    CHECK_THAT(!prepare_threads(NULL, &o, &e), "%s", e.text);
    o.threads = 2;
    CHECK_THAT(prepare_threads(NULL, &o, &e) == MISUSED && strstr(e.text, "--threads 2"), "%s",
               e.text);
#endif
}

#ifdef _OPENMP
/* A folder with a control group's files. */
static void write_group(const char *folder, const char *name, const char *text) {
    CHECK_THAT(!system(str("mkdir -p %s", folder).s), "%s", folder);
    string path = str("%s/%s", folder, name);
    write_bytes(path.s, text, strlen(text));
}
#endif

/* The container's quota, of both versions of control groups, the group's own and those above it. */
static void test_quota(void) {
#ifdef _OPENMP
    static const char v2[] = "0::/pod/box\n";
    static const char v1[] = "12:cpuset:/x\n4:cpu,cpuacct:/pod/box\n1:name=systemd:/\n0::/\n";
    string mount = str("%s/cgroup", temporary);
    const char *groups = in_temporary("groups"), *at = mount.s;
    write_bytes(groups, v2, strlen(v2));
    CHECK_THAT(isinf(processor_quota(groups, at)), "no files");
    CHECK_THAT(isinf(processor_quota(in_temporary("nothing"), at)), "no groups");
    write_group(str("%s/pod/box", at).s, "cpu.max", "max 100000\n");
    CHECK_THAT(isinf(processor_quota(groups, at)), "max");
    write_group(str("%s/pod/box", at).s, "cpu.max", "350000 100000\n");
    CHECK_THAT(processor_quota(groups, at) == 3.5, "%g", processor_quota(groups, at));
    write_group(str("%s/pod", at).s, "cpu.max", "150000 100000\n");
    CHECK_THAT(processor_quota(groups, at) == 1.5, "%g", processor_quota(groups, at));
    write_group(at, "cpu.max", "50000 100000\n"); /* as a container sees its own */
    CHECK_THAT(processor_quota(groups, at) == 0.5, "%g", processor_quota(groups, at));

    write_bytes(groups, v1, strlen(v1));
    CHECK_THAT(!system(str("rm -r %s", at).s), "rm");
    CHECK_THAT(isinf(processor_quota(groups, at)), "version 1: no files");
    write_group(str("%s/cpu", at).s, "cpu.cfs_quota_us", "-1\n");
    write_group(str("%s/cpu", at).s, "cpu.cfs_period_us", "100000\n");
    CHECK_THAT(isinf(processor_quota(groups, at)), "version 1: -1");
    write_group(str("%s/cpu/pod/box", at).s, "cpu.cfs_quota_us", "120000\n");
    write_group(str("%s/cpu/pod/box", at).s, "cpu.cfs_period_us", "60000\n");
    CHECK_THAT(processor_quota(groups, at) == 2, "%g", processor_quota(groups, at));

    options o = standard_options();
    o.threads = 3;
    CHECK_THAT(threads_to_use(&o) == 3, "--threads 3: %d", threads_to_use(&o));
#endif
}

/* As many busy processes as there are processors: the default is not much slower than one thread.
 * The quicker of two, in turn. Threads that spin for milliseconds take ten times as long. */
static void test_busy_machine(void) {
    enum { MOST = 256 };

    pid_t busy[MOST];
    int n = 2;
    double best[2] = {INFINITY, INFINITY};
#ifdef _OPENMP
    n = min_int(MOST, max_int(n, omp_get_num_procs()));
#endif
    fflush(stdout);
    for (int i = 0; i < n; i++)
        if (!(busy[i] = fork())) {
            alarm(300);
            for (volatile int forever = 1; forever;) {
            }
            _exit(0);
        }
    for (int i = 0; i < 4; i++) {
        string ask = str("generate weights/tiny-llama.bin --prompts weights/purposes-test.txt "
                         "--max-new %d --quiet --jsonl %s/busy.jsonl%s",
                         SANITIZED ? 2 : 48, temporary, i % 2 ? " --threads 1" : "");
        double started = seconds();
        CHECK_THAT(!run_untold("", ask.s, ""), "%s", complained);
        best[i % 2] = fmin(best[i % 2], seconds() - started);
    }
    for (int i = 0; i < n; i++) {
        if (busy[i] > 0)
            kill(busy[i], SIGKILL);
        waitpid(busy[i], NULL, 0);
    }
    CHECK_THAT(best[0] < 5 * best[1], "%d busy processes: %.2f s, with one thread %.2f", n, best[0],
               best[1]);
}

/* Hostile inputs, by libFuzzer: one program, whose entry the variable ENTRY names:
 *
 *     ENTRY=model tests/fuzz tests/corpus/model
 *
 * What makes an input bad enough to get in is repaired here (checksums, sizes, fingerprints), so
 * that mutations reach the code behind those checks; tests/test.c shows that the checks hold. An
 * entry stops the program at an access outside memory, an undefined operation, memory that is not
 * given back, or a CHECK_THAT that does not hold. `ENTRY=seeds tests/fuzz` writes the first inputs
 * of tests/corpus anew, from the small models of fixtures.inc.c. */
#define main steer_main
#include "../steer.c"
#undef main
#include <glob.h>
#define CHECK_THAT(condition, ...)                                  \
    do {                                                            \
        if (!(condition)) {                                         \
            fprintf(stderr, "line %d: %s: ", __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__);                           \
            fputc('\n', stderr);                                    \
            abort();                                                \
        }                                                           \
    } while (0)
#include "fixtures.inc.c"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t cap);

/* ---------------------------------------------------------------- reading an input as choices */

typedef struct {
    const uint8_t *at, *end;
} input;

static unsigned take_byte(input *in) {
    return in->at < in->end ? *in->at++ : 0;
}

static int take(input *in, int below) {
    return (int)(take_byte(in) % (unsigned)below);
}

/* Most often a number below `usual`, else one at which sizes and signs go wrong. */
static int odd_int(input *in, int usual) {
    static const int odd[] = {-1,          0,           1,       2,
                              63,          64,          65,      255,
                              256,         1 << 20,     1 << 24, (1 << 24) + 1,
                              INT_MAX / 2, INT_MAX - 1, INT_MAX, INT_MIN,
                              INT_MIN + 1, -2,          -64};
    unsigned choice = take_byte(in);
    if (choice >= 32)
        return (int)choice % usual;
    return odd[choice % (sizeof odd / sizeof *odd)];
}

static double odd_number(input *in) {
    static const double odd[] = {0,     -0.0,   1,      -1,       0.5,       1e-45,
                                 1e-30, 3,      100,    1e15,     -1e15,     3e38,
                                 1e300, -1e300, 5e-324, INFINITY, -INFINITY, NAN};
    unsigned choice = take_byte(in);
    if (choice >= 64)
        return (choice - 128.0) / 16;
    return odd[choice % (sizeof odd / sizeof *odd)];
}

/* What is left of the input up to a zero byte, at most `most` bytes, as a string to be freed. */
static char *take_string(input *in, size_t most) {
    size_t left = (size_t)(in->end - in->at), n = strnlen((const char *)in->at, left);
    if (n > most)
        n = most;
    char *s = zeros(n + 1, 1);
    memcpy(s, in->at, n);
    in->at += n < left ? n + 1 : n;
    return s;
}

static const char *as_file(const char *name, const void *bytes, size_t n) {
    const char *path = in_temporary(name);
    write_bytes(path, bytes, n);
    return path;
}

/* A call that failed says so in its error, in words. */
static void check_status(steer_status s, const steer_error *e) {
    CHECK_THAT(!s || (e->code == s && strlen(e->text) > 10), "status %d, code %d: %s", (int)s,
               (int)e->code, e->text);
}

static void check_ids(const steer_model *m, const int *ids, long n) {
    for (long i = 0; i < n; i++)
        CHECK_THAT(ids[i] >= 0 && ids[i] < m->config.vocab, "token %ld is %d", i, ids[i]);
}

/* ---------------------------------------------------------------- models */

enum { MODELS = 4, TEXT_CAP = 1 << 16 };

static const struct {
    const char *name;
    dtype type;
    int kind;
} seeds[MODELS] = {{"plain", F32, SMALL_TINY},
                   {"gemma", F32, SMALL_TINY | SMALL_GEMMA},
                   {"qwen", BF16, SMALL_TINY | SMALL_NFC},
                   {"q8", Q8, SMALL_TINY | SMALL_GEMMA}};

static steer_model *seed_model(int i) { /* opened once, and kept */
    static steer_model *made[MODELS];
    if (made[i])
        return made[i];
    image f = small_image(seeds[i].type, seeds[i].kind);
    return made[i] = open_image(&f);
}

/* Patch, twice: by integrated gradients and by a cut circuit. */
static void patch(const steer_model *m, const int *tokens, int n, int prompt, float *v) {
    steer_error e = {0};
    int layer = m->config.layers - 1;
    steer_tracer *t = steer_tracer_new(m, layer, n, n - prompt + 1, 1, &e);
    if (!t) {
        check_status(e.code, &e);
        return;
    }
    steer_example x = {tokens, n, prompt, 2, 1};
    double F, *scores = zeros(scores_width(t), sizeof *scores);
    unsigned char *cut = zeros(edge_places(&t->graph), 1);
    changes plan = {.layer = layer, .cut = cut};
    for (int i = 0; i < (int)edge_places(&t->graph); i++)
        cut[i] = has_edge(&t->graph, i) && i % 2;
    check_status(attribute(t, &x, v, STEER_LOGIT, 1, scores, &e), &e);
    check_status(steer_faithfulness(t, &x, v, plan_of(&plan), 1, &F, NULL, &e), &e);
    free(cut);
    free(scores);
    steer_tracer_free(t);
}

/* Every table of an open model is read: text, chat, judge, generation, freezing, patching. */
static void use_model(const steer_model *m) {
    const char *turn = "the thing";
    int ids[256], answer[4];
    char out[512];
    steer_error e = {0};
    long n = steer_encode(m, hard_text, sizeof hard_text - 1, ids, 256, &e);
    CHECK_THAT(n >= 0, "%s", e.text);
    check_ids(m, ids, min_int((int)n, 256));
    steer_decode(m, ids, min_int((int)n, 256), out, sizeof out);
    is_coherent(m, judged_text, "x");
    n = steer_chat(m, NULL, &turn, 1, ids, 256, &e);
    if (n < 0)
        check_status(e.code, &e);
    if (n < 1)
        return;
    check_ids(m, ids, min_int((int)n, 256));
    int prompt = min_int((int)n, 8);
    int positions = min_int(m->config.max_seq, 12);
    steer_limits l = {.streams = 3, .positions = positions, .rows = 16};
    size_t bytes = steer_context_bytes(m, &l);
    if (!bytes || bytes > (size_t)16 << 20)
        return;
    steer_context *c = steer_context_new(m, &l, &e);
    CHECK_THAT(c, "%s", e.text);
    float *v = zeros(m->config.d, sizeof *v);
    for (int i = 0; i < m->config.d; i++)
        v[i] = (float)(i % 3 - 1);
    v[0] = 1;
    changes plan = {.add = v, .coeff = 1, .layer = m->config.layers / 2, .freeze = 7};
    steer_job jobs[2] = {{.prompt = ids, .n_prompt = prompt, .max_new = 3, .out = answer},
                         {.prompt = ids,
                          .n_prompt = prompt,
                          .max_new = 1,
                          .out = answer + 3,
                          .plan = plan_of(&plan),
                          .temperature = 1,
                          .top_p = 0.9f}};
    steer_status s = steer_generate(c, jobs, 2, NULL, NULL, &e);
    check_status(s, &e);
    for (int k = 0; k < 2 && !s; k++)
        check_ids(m, jobs[k].out, jobs[k].n_out);
    steer_context_free(c);
    if (!s && positions >= prompt + 1) {
        memcpy(ids + prompt, answer, sizeof(int));
        patch(m, ids, prompt + 1, prompt, v);
    }
    free(v);
}

/* The size and the checksum of the head, made anew. */
static void repair_model(unsigned char *bytes, size_t n) {
    uint64_t size = n;
    if (n < HEAD)
        return;
    memcpy(bytes + 16, &size, 8);
    seal_head(bytes, n);
}

static void fuzz_model(const uint8_t *data, size_t n) {
    steer_error e = {0};
    unsigned char *bytes = malloc(n ? n : 1); /* of the exact size, for the sanitizer */
    memcpy(bytes, data, n);
    repair_model(bytes, n);
    steer_model *m = steer_open_memory(bytes, n, "broken", &e);
    if (m)
        use_model(m);
    else
        check_status(STEER_EFORMAT, &e);
    steer_close(m);
    free(bytes);
}

/* Change section i and move everything behind it. */
static size_t mutate_section(uint8_t *data, size_t n, size_t cap, unsigned i) {
    file_header *h = (file_header *)data;
    unsigned char *old = malloc(n), part[1 << 14];
    size_t data_at = (size_t)h->data, at = (size_t)h->section[i].offset;
    size_t length = (size_t)h->section[i].bytes, behind = 0, changed = 0;
    int sound = data_at <= n && at <= data_at && length <= data_at - at && length < sizeof part / 2;
    memcpy(old, data, n);
    if (sound) {
        memcpy(part, old + at, length);
        changed = LLVMFuzzerMutate(part, length, length + 64);
        behind = round_up(at + changed, ALIGN);
    }
    size_t next = sound ? round_up(at + length, ALIGN) : 0;
    if (sound && next <= n && behind + n - next <= cap) {
        int64_t moved = (int64_t)behind - (int64_t)next;
        memset(data + at, 0, behind - at);
        memcpy(data + at, part, changed);
        memcpy(data + behind, old + next, n - next);
        n = behind + n - next;
        h->section[i].bytes = changed;
        for (unsigned k = i + 1; k < SECTIONS; k++)
            h->section[k].offset += (uint64_t)moved;
        h->data += (uint64_t)moved;
        for (size_t k = 0; k < h->n_tensors && HEAD + (k + 1) * sizeof(file_record) <= at; k++)
            ((file_record *)(data + HEAD))[k].offset += (uint64_t)moved;
    }
    free(old);
    return n;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t cap, unsigned seed) {
    const char *entry = getenv("ENTRY");
    if (strcmp(entry ? entry : "", "model") || n < 2 * HEAD)
        return LLVMFuzzerMutate(data, n, cap);
    uint8_t *aligned = malloc(cap);
    memcpy(aligned, data, n);
    unsigned kind = seed & 15, from = HEAD, length = 0;
    if (kind < SECTIONS)
        n = mutate_section(aligned, n, cap, kind);
    else if (kind == 15)
        n = LLVMFuzzerMutate(aligned, n, cap);
    else if (kind >= 13) { /* weights */
        from = (unsigned)(n / 2);
        length = (unsigned)(n - n / 2);
    } else if (kind == 12)
        length = 10 * sizeof(file_record); /* directory */
    else {
        from = offsetof(file_header, config);
        length = CONFIG_BYTES;
    }
    if (length && from + length <= n) {
        unsigned k = (seed >> 4) % (length - 15); /* sixteen bytes of that part */
        LLVMFuzzerMutate(aligned + from + k, 16, 16);
    }
    repair_model(aligned, n);
    memcpy(data, aligned, n);
    free(aligned);
    return n;
}

/* ---------------------------------------------------------------- vectors, circuits, prompts */

/* A vector that was taken comes back from a file of this name, and can be added. It is freed. */
static void use_vector(const steer_model *m, steer_vector *v, const char *name) {
    steer_vector again;
    steer_error e = {0};
    const char *copy = in_temporary(name);
    size_t d = sizeof(float) * (size_t)v->d;
    int everything = !strstr(name, ".npy"); /* an array [d] does not say its block */
    steer_status s = steer_vector_save(v, copy, &e);
    check_status(s, &e);
    CHECK_THAT(!s || s == STEER_EARG, "%s", e.text); /* block 0 has no place in a GGUF */
    if (!s) {
        CHECK_THAT(!steer_vector_load(&again, copy, m, STEER_FOREIGN, &e), "%s", e.text);
        CHECK_THAT(!memcmp(v->v, again.v, d) && v->coeff == (everything ? again.coeff : v->coeff) &&
                       (!everything || (v->layer == again.layer && v->pos == again.pos)),
                   "a vector does not come back");
        steer_vector_free(&again);
    }

    steer_edit edits[MAX_BLOCKS + 2];
    int n = steer_vector_edits(v, v->coeff, edits), prompt[4] = {1, 2, 3, 4}, out[2];
    edits[n] = (steer_edit){STEER_FREEZE, .what = STEER_QK};
    steer_plan plan = {edits, n + 1};
    steer_limits l = {.streams = 2, .positions = 8, .rows = 8};
    steer_context *c = steer_context_new(m, &l, &e);
    steer_job job = {.prompt = prompt, .n_prompt = 4, .max_new = 2, .out = out, .plan = &plan};
    check_status(steer_generate(c, &job, 1, NULL, NULL, &e), &e);
    steer_context_free(c);
    steer_vector_free(v);
}

static void fuzz_vector(const uint8_t *data, size_t n) {
    steer_model *m = seed_model(1);
    steer_vector v;
    steer_error e = {0};
    unsigned char *bytes = malloc(n ? n : 1);
    memcpy(bytes, data, n);
    unsigned flags = n && data[n - 1] & 1 ? STEER_FOREIGN : 0;
    if (n >= sizeof(vector_header)) {
        vector_header h;
        memcpy(&h, bytes, sizeof h);
        h.size = n;
        if (!flags || data[n - 1] & 2) {
            h.fingerprint = m->config.fingerprint;
            h.template_crc = m->template_crc;
        }
        size_t floats = (n - sizeof h) / 4, d = m->config.d;
        if (data[n - 1] & 4 && floats > d) { /* means of as many blocks as there are numbers for */
            h.d = m->config.d;
            h.layers = (int)((floats - d) / 3);
            h.several = h.lacks_keep = 0;
        }
        memcpy(bytes, &h, sizeof h);
        h.crc = crc_around(bytes, n, offsetof(vector_header, crc));
        memcpy(bytes, &h, sizeof h);
    }
    const char *path = as_file("in.vec", bytes, n);
    free(bytes);
    steer_status s = steer_vector_load(&v, path, m, flags, &e);
    check_status(s, &e);
    if (!s)
        use_vector(m, &v, "out.vec");
}

/* The formats of other programs; their magic is put right. */
static void fuzz_format(const uint8_t *data, size_t n, const char *magic, const char *name) {
    steer_model *m = seed_model(1);
    steer_vector v;
    steer_error e = {0};
    unsigned char *bytes = malloc(n ? n : 1); /* no byte more */
    memcpy(bytes, data, n);
    memcpy(bytes, magic, min_size(n, strlen(magic)));
    steer_status s = steer_vector_load_memory(&v, bytes, n, name, m, STEER_FOREIGN, &e);
    free(bytes);
    check_status(s, &e);
    if (!s)
        use_vector(m, &v, name);
}

static void fuzz_gguf(const uint8_t *data, size_t n) {
    fuzz_format(data, n, "GGUF\3", "out.gguf");
}

static void fuzz_npy(const uint8_t *data, size_t n) {
    fuzz_format(data, n, "\x93NUMPY\1", "out.npy");
}

static void fuzz_circuit(const uint8_t *data, size_t n) {
    static const char start[] = "steer circuit 0123456789abcdef";
    static steer_tracer *t;
    steer_model *m = seed_model(0);
    steer_error e = {0};
    char *text = zeros(n + 1, 1), model[17];
    memcpy(text, data, n);
    snprintf(model, sizeof model, "%016llx", (unsigned long long)m->config.fingerprint);
    if (n >= sizeof start - 1 && !memcmp(text, start, 14))
        memcpy(text + 14, model, 16);
    if (!t)
        t = steer_tracer_new(m, 1, 6, 3, 1, &e);
    CHECK_THAT(t, "%s", e.text);
    size_t cells = edge_places(&t->graph);
    unsigned char *keep = zeros(cells, 1), *cut = zeros(cells, 1);
    steer_status status = steer_circuit_load(as_file("circuit", text, n), m, &t->graph, keep, &e);
    check_status(status, &e);
    if (!status) {
        int tokens[5] = {65, 66, 67, 68, 69}, edges = steer_circuit_prune(&t->graph, keep, &e);
        double F;
        check_status(steer_circuit_cut(&t->graph, keep, 0, cut, &e), &e);
        changes plan = {.layer = 1, .cut = cut};
        float v[8] = {1, -1, 2, -2, 1, 1, -1, 3};
        steer_example x = {tokens, 5, 3, 1, 1};
        CHECK_THAT(edges >= 0 && edges <= t->graph.edges, "%d edges", edges);
        check_status(steer_faithfulness(t, &x, v, plan_of(&plan), 1, &F, NULL, &e), &e);
    }
    free(text);
    free(keep);
    free(cut);
}

static void fuzz_prompts(const uint8_t *data, size_t n) {
    input in = {data, data + n};
    int which = take(&in, 3), limit = odd_int(&in, 4);
    const steer_model *m = seed_model(which);
    steer_prompts p;
    steer_error e = {0};
    const char *path = as_file("prompts", in.at, (size_t)(in.end - in.at));
    steer_status s = steer_prompts_load(&p, m, path, limit, &e);
    check_status(s, &e);
    CHECK_THAT(s || p.n > 0, "no prompts, and no error");
    CHECK_THAT(s || limit <= 0 || p.n <= limit, "%d prompts of at most %d", p.n, limit);
    int plain = !memchr(in.at, '{', (size_t)(in.end - in.at)); /* no system prompts, no responses */
    for (int i = 0; i < p.n; i++) {
        const char *turn = p.text[i];
        int ids[64];
        long count = steer_chat(m, NULL, &turn, 1, ids, 64, &e);
        CHECK_THAT(!plain || (count == p.lengths[i] && count <= 64 && !p.responses[i] &&
                              !memcmp(ids, p.tokens[i], sizeof *ids * (size_t)count)),
                   "prompt %d has other tokens", i);
        CHECK_THAT(p.lengths[i] > 0 && p.responses[i] >= 0 && p.lengths[i] + p.responses[i] <= 64,
                   "prompt %d: %d tokens, %d of a response", i, p.lengths[i], p.responses[i]);
        for (int t = 0; t < p.lengths[i] + p.responses[i]; t++)
            CHECK_THAT(p.tokens[i][t] >= 0 && p.tokens[i][t] < m->config.vocab, "token %d",
                       p.tokens[i][t]);
    }
    steer_prompts_free(&p);

    /* The same bytes as a judge's phrases, all of which it finds; and, if short, as first
     * tokens. */
    experiment x = {.m = m, .e = &e};
    e = (steer_error){0};
    s = read_judge(&x, path);
    check_status(s, &e);
    for (int i = 0; i < x.behaviour.n_phrases && !s; i++)
        CHECK_THAT(steer_shows(&x.behaviour, x.behaviour.phrases[i]), "phrase %d", i);
    char list[32] = "";
    memcpy(list, in.at, min_size(sizeof list - 1, (size_t)(in.end - in.at)));
    e = (steer_error){0};
    s = read_first(&x, list);
    check_status(s, &e);
    for (int i = 0; i < x.behaviour.n_first; i++)
        CHECK_THAT(x.behaviour.first[i] >= 0 && x.behaviour.first[i] < m->config.vocab, "token");
    clear_experiment(&x);
}

/* ---------------------------------------------------------------- lists of the command line */

static string place_as_text(edit_place at) {
    static const char *const parts[] = {"all", "prompt", "answer"};
    return at.to ? str("first:%d", at.to) : str("%s", parts[at.part]);
}

static int same_places(edit_place a, edit_place b) {
    return a.part == b.part && a.to == b.to;
}

/* A text as --positions, --layers, --freeze and --remove: what is read of it is within bounds, and
 * written in the plainest way is read as the same. */
static void fuzz_lists(const uint8_t *data, size_t n) {
    input in = {data, data + n};
    char *text = take_string(&in, 400);
    edit_place at, again;
    if (read_place(text, strlen(text), &at)) {
        string plain = place_as_text(at);
        CHECK_THAT(!outside(at.part, 0, 2) && !outside(at.to, 0, 1000000) &&
                       (!at.to || at.part == STEER_IN_ANSWER),
                   "part %d to %d", at.part, at.to);
        CHECK_THAT(read_place(plain.s, strlen(plain.s), &again) && same_places(at, again), "%s",
                   plain.s);
    }

    static char plain[8 * MAX_BLOCKS];
    unsigned char has[MAX_BLOCKS], same[MAX_BLOCKS];
    if (read_blocks(text, has)) {
        int length = 0;
        for (int b = 0; b < MAX_BLOCKS; b++)
            if (has[b])
                length += snprintf(plain + length, 8, "%s%d", length ? "," : "", b);
        CHECK_THAT(length && read_blocks(plain, same) && !memcmp(has, same, sizeof has), "%s",
                   plain);
    }

    for (int k = 0; k < 2; k++) {
        steer_kind kind = k ? STEER_REMOVE : STEER_FREEZE;
        change_list list = {.n = 0}, copy = {.n = 0};
        steer_error e = {0};
        steer_status s = read_changes(k ? "--remove" : "--freeze", text, kind, &list, &e);
        check_status(s, &e);
        string written = {""};
        for (int i = 0; i < list.n && !s; i++) {
            static const char *const words[2][3] = {{"qk", "v", "mlp"}, {"svv", "mlp-direct"}};
            const steer_edit *x = &list.edits[i];
            int bit = __builtin_ctz(x->what);
            CHECK_THAT(x->kind == kind && bit < (k ? 2 : 3) && x->what == 1u << bit, "bit %d", bit);
            written = str("%.300s%s%s@%s", written.s, i ? "," : "", words[k][bit],
                          place_as_text((edit_place){x->part, x->to}).s);
        }
        CHECK_THAT(s || (list.n > 0 && !read_changes("--freeze", written.s, kind, &copy, &e) &&
                         copy.n == list.n),
                   "\"%s\" is \"%s\"", text, written.s);
        for (int i = 0; i < list.n && !s; i++) {
            const steer_edit *x = &list.edits[i], *y = &copy.edits[i];
            CHECK_THAT(x->what == y->what && x->part == y->part && x->to == y->to,
                       "\"%s\" is \"%s\"", text, written.s);
        }
    }
    free(text);
}

/* ---------------------------------------------------------------- text on all tokenizers */

/* The model files that are there: the box's, and real ones that were fetched or exported. */
static int all_files(char *const **names) {
    static glob_t found;
    if (!found.gl_pathc)
        CHECK_THAT(!glob("weights/*.bin", 0, NULL, &found), "no model in weights/");
    *names = found.gl_pathv;
    return (int)found.gl_pathc;
}

/* The tokenizer of such a file, opened once, or one that was made for the tests. */
static const steer_model *some_tokenizer(input *in) {
    enum { MOST = 64 };

    static steer_model *opened[MOST];
    char *const *names;
    int files = min_int(MOST, all_files(&names)), which = take(in, files + MODELS);
    steer_error e = {0};
    if (which >= files)
        return seed_model(which - files);
    if (!opened[which])
        opened[which] = steer_open(names[which], 0, &e);
    CHECK_THAT(opened[which], "%s: %s", names[which], e.text);
    return opened[which];
}

static void fuzz_text(const uint8_t *data, size_t n) {
    input in = {data, data + n};
    const steer_model *m = some_tokenizer(&in);
    int cap = odd_int(&in, 64);
    steer_error e = {0};
    const char *text = (const char *)in.at;
    size_t bytes = (size_t)(in.end - in.at), room = bytes + 1;
    int *ids = zeros(room, sizeof *ids), *some = zeros(room, sizeof *some);
    long count = steer_encode(m, text, bytes, ids, (long)room, &e);
    long normal = m->config.nfc ? 3 * (long)bytes : (long)bytes; /* NFC may write more bytes */
    CHECK_THAT(count >= 0 && count <= normal, "%ld tokens of %zu bytes: %s", count, bytes, e.text);
    long kept = count < (long)room ? count : (long)room;
    check_ids(m, ids, kept);
    if (cap > (int)room)
        cap = (int)room;
    CHECK_THAT(steer_encode(m, text, bytes, cap > 0 ? some : NULL, cap, &e) == count,
               "another count of tokens where fewer are written");
    CHECK_THAT(cap <= 0 || !memcmp(ids, some, sizeof *ids * (size_t)(cap < kept ? cap : kept)),
               "other tokens");
    size_t length = steer_decode(m, ids, (int)kept, NULL, 0);
    char *back = zeros(length + 1, 1);
    CHECK_THAT(steer_decode(m, ids, (int)kept, back, length + 1) == length, "another length");
    char *sayable = zeros(bytes + 1, 1); /* the text without the bytes that have no token */
    size_t whole = 0;
    for (size_t i = 0; i < bytes; i++)
        if (m->byte_token[(unsigned char)text[i]] != UINT32_MAX)
            sayable[whole++] = text[i];
    if (!m->config.nfc)
        CHECK_THAT(length == whole && !memcmp(back, sayable, whole), "the text does not come back");
    else if (kept == count) { /* what is normal stays: the same tokens once more */
        int *twice = zeros(room, sizeof *twice);
        CHECK_THAT(steer_encode(m, back, length, twice, (long)room, &e) == count &&
                       !memcmp(ids, twice, sizeof *ids * (size_t)count),
                   "not a normal form");
        free(twice);
    }
    free(back);
    free(sayable);
    char *turn = take_string(&in, 200), *system = take_string(&in, 20);
    const char *turns[3] = {turn, "Yes.", turn};
    int chat[64];
    long chatted = steer_chat(m, *system ? system : NULL, turns, 1 + 2 * (cap & 1), chat, 64, &e);
    if (chatted < 0)
        check_status(e.code, &e);
    else
        check_ids(m, chat, min_int((int)chatted, 64));
    free(turn);
    free(system);
    free(ids);
    free(some);
}

/* ---------------------------------------------------------------- stores */

/* Numbers that a record of this key holds: enough to see whether it is whole and itself. */
static void fill_record(uint64_t key, double *values, size_t n) {
    for (size_t i = 0; i < n; i++)
        values[i] = (double)(key * 1000 + i);
}

/* What a store's file must hold, the records that were written, and what became of it. */
enum { WRITTEN = 64 };

typedef struct {
    char path[160];

    struct {
        int key, size;
        off_t end;
    } record[WRITTEN];

    int n;

    enum { SOUND, FLIPPED /* one bit, of a whole record or the header */, ANYTHING } state;

    off_t flipped;
} fuzzed_store;

static off_t border_of(const fuzzed_store *x) {
    return x->n ? x->record[x->n - 1].end : (off_t)sizeof(store_head);
}

/* What an open store has is what was written; all of it, but one in which a bit was flipped. */
static void check_records(const fuzzed_store *x, const records *r) {
    double values[16], read[16];
    steer_error e = {0};
    int lost = 0;
    for (int i = 0; i < x->n; i++) {
        off_t start = i ? x->record[i - 1].end : (off_t)sizeof(store_head);
        lost += x->state == FLIPPED && x->flipped >= start && x->flipped < x->record[i].end;
        size_t n = (size_t)x->record[i].size;
        int found, last = 1;
        for (int k = i + 1; k < x->n; k++)
            last &= x->record[k].key != x->record[i].key;
        steer_status s = read_record(r, (uint64_t)x->record[i].key, read, n, &found, &e);
        CHECK_THAT(!s, "%s", e.text);
        fill_record((uint64_t)x->record[i].key, values, n);
        CHECK_THAT(!found || !memcmp(read, values, 8 * n), "record %d changed", i);
        CHECK_THAT(found || !last || x->state, "record %d is gone", i);
    }
    CHECK_THAT(x->state == ANYTHING || r->count == (size_t)(x->n - lost),
               "%zu records, not %d - %d", r->count, x->n, lost);
}

static void fuzz_append(fuzzed_store *x, int key, int size) {
    records r = {.path = NULL};
    steer_error e = {0};
    double values[16];
    steer_status s = open_records(&r, x->path, OWN, &e);
    check_status(s, &e);
    CHECK_THAT(x->state != SOUND || !s, "%s", e.text);
    CHECK_THAT(x->state != FLIPPED || s == STEER_EFORMAT, "a flipped bit is not seen");
    if (!s)
        check_records(x, &r);
    if (!s && x->n < WRITTEN) {
        fill_record((uint64_t)key, values, (size_t)size);
        s = remember(&r, (uint64_t)key, values, (size_t)size, &e);
        check_status(s, &e);
        x->record[x->n].key = key;
        x->record[x->n].size = size;
        x->record[x->n++].end = r.end;
    }
    close_records(&r);
}

static void fuzz_cut(fuzzed_store *x, off_t size) {
    if (truncate(x->path, size))
        return;
    while (x->n && x->record[x->n - 1].end > size)
        x->n--;
    if (x->state == FLIPPED && x->flipped >= size)
        x->state = SOUND;
    if (x->state == FLIPPED && x->flipped >= border_of(x))
        x->state = ANYTHING;
    if (size && size < (off_t)sizeof(store_head))
        x->state = ANYTHING;
    if (!size)
        x->state = SOUND;
}

static void fuzz_flip(fuzzed_store *x, off_t at, int bit) {
    unsigned char byte = 0;
    int fd = open(x->path, O_RDWR);
    if (pread(fd, &byte, 1, at) == 1)
        byte ^= (unsigned char)(1 << bit);
    if (pwrite(fd, &byte, 1, at) != 1)
        abort();
    close(fd);
    x->state = x->state == SOUND && at < border_of(x) ? FLIPPED : ANYTHING;
    x->flipped = at;
}

/* Into a third one; of damaged stores, unless they may be salvaged, nothing. */
static void fuzz_merge(fuzzed_store *x, const char *to, int salvage) {
    char *parts[] = {x[0].path, x[1].path, NULL};
    options o = {.out = to, .argument = parts, .n_arguments = 2, .salvage = salvage};
    steer_error e = {0};
    records r = {.path = NULL};
    int there = exists(x[0].path) && exists(x[1].path), damaged = 0, any = 0;
    for (int k = 0; k < 2; k++) {
        damaged |= x[k].state == FLIPPED;
        any |= x[k].state == ANYTHING || (x[k].state == FLIPPED && !x[k].n); /* its header alone */
    }
    progress bar = {.total = 1, .part = 1};
    steer_status s = command_merge(&o, &bar, &e);
    check_status(s, &e);
    CHECK_THAT(s || there, "a store that is not there");
    CHECK_THAT(!s || any || !there || (damaged && !salvage), "%s", e.text);
    CHECK_THAT(s || salvage || !damaged, "a flipped bit is not seen");
    CHECK_THAT(!s || !exists(to), "a merge that failed leaves a file");
    if (!s) {
        s = open_records(&r, to, READ, &e);
        CHECK_THAT(!s, "%s", e.text);
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < x[k].n && !damaged && !any; i++)
                CHECK_THAT(find_record(&r, (uint64_t)x[k].record[i].key), "record %d of %d", i, k);
        close_records(&r);
    }
    remove(to);
}

/* Records are written, the files damaged, cut, opened again, merged. What was written and not
 * touched since is there; what was touched is noticed; nothing is there that was not written. */
static void fuzz_store(const uint8_t *data, size_t n) {
    static fuzzed_store stores[2];
    char to[160];
    memset(stores, 0, sizeof stores);
    for (int i = 0; i < 2; i++) {
        snprintf(stores[i].path, sizeof stores[i].path, "%s/%c.store", temporary, 'a' + i);
        remove(stores[i].path);
    }
    snprintf(to, sizeof to, "%s/c.store", temporary);
    remove(to);
    input in = {data, data + n};
    for (int steps = 0; in.at < in.end && steps < 80; steps++) {
        int what = take(&in, 8), k = take(&in, 2), key = take(&in, 16), size = 1 + take(&in, 15);
        fuzzed_store *x = &stores[k];
        struct stat st;
        off_t length = stat(x->path, &st) ? 0 : st.st_size, at = length * (key * 16 + size) / 256;
        if (what < 4)
            fuzz_append(x, key, size);
        if (what == 4 && length)
            fuzz_cut(x, at);
        if (what == 5 && length)
            fuzz_flip(x, at, size & 7);
        if (what == 6) { /* anything */
            unsigned char bytes[64];
            for (int i = 0; i < 4 * size; i++)
                bytes[i] = (unsigned char)take_byte(&in);
            int fd = open(x->path, O_RDWR | O_CREAT | (key & 1 ? O_APPEND : 0), 0600);
            if (write(fd, bytes, 4 * (size_t)size) < 0)
                abort();
            close(fd);
            x->state = ANYTHING;
        }
        if (what == 7)
            fuzz_merge(stores, to, key & 1);
    }
}

/* ---------------------------------------------------------------- reports */

static void fuzz_report(const uint8_t *data, size_t n) {
    static const char *const tables[] = {"steering",     "methods",  "freezing",    "dose",
                                         "faithfulness", "sparsity", "circuit",     "shaded",
                                         "svv",          "overlap",  "interchange", "other"};
    static const column columns[][5] = {
        {{"set", WORDS}, {"refused", 2}, {"low", 2}, {0}},
        {{"token", WORDS}, {"KL", 3}, {"text", WORDS}, {0}},
        {{"head", WORDS}, {"effect", 0}, {"tokens", WORDS}, {"2", WORDS}, {0}},
        {{"", WORDS}, {0}},
        {{"what", WORDS}, {"loss", 1}, {"harmless +", 2}, {0}},
        {{"one", WORDS}, {"two", 9}, {0}}};
    static const char page[] = "<script>let report = /*REPORT*/null/*END*/;</script>";
    input in = {data, data + n};
    report r = {0};
    steer_model m = {0};
    while (in.at < in.end && n_entries(&r) < 12) {
        int what = take(&in, 5);
        if (!n_entries(&r))
            what = 0; /* a report begins with its model */
        char *text = take_string(&in, 40);
        if (what == 0) {
            memset(m.config.name, 0, sizeof m.config.name);
            snprintf(m.config.name, sizeof m.config.name, "%s", text);
            open_report(&r, &m, 0);
        } else if (what == 1)
            add_note(&r, "%s", text);
        else if (what == 2) {
            const measure numbers[] = {{text,
                                        {odd_number(&in), odd_number(&in), 1, 1, 1},
                                        "at most",
                                        odd_number(&in),
                                        NAN,
                                        NULL},
                                       {0}};
            add_finding(&r, text, "holds", text, numbers);
            add_answer(&r, 0, "-s", 1, text, text);
        } else {
            const char *name = tables[take(&in, sizeof tables / sizeof *tables)];
            open_table(&r, name, columns[take(&in, sizeof columns / sizeof *columns)], "%s", text);
            for (int rows = take(&in, 12); rows; rows--) {
                double values[8];
                char *label = take_string(&in, 12), *texts = take_string(&in, 12);
                if (!*label) { /* a row of the summary's bars */
                    free(label);
                    label = strdup("steered");
                }
                for (int i = 0; i < 8; i++)
                    values[i] = odd_number(&in);
                add_row(&r, label, values, 8, (const char *[]){texts, label}, take(&in, 3));
                free(label);
                free(texts);
            }
        }
        free(text);
    }
    size_t sizes[2] = {0};
    char *json = report_text(&r, NULL, &sizes[0]), *html = report_text(&r, page, &sizes[1]);
    CHECK_THAT(json && html && strlen(json) == sizes[0], "no report");
    CHECK_THAT(is_json(json), "not JSON: %s", json);
    CHECK_THAT(!strchr(json, '<') && sizes[1] == sizes[0] + strlen(page) - strlen(page_marker) &&
                   !memcmp(strchr(html, '=') + 2, json, sizes[0]),
               "a page: %s", html);
    free(json);
    free(html);

    /* Its summary, on a terminal of any width: no line is wider than that, or than 80. */
    options o = standard_options();
    steer_error e = {0};
    size_t size = 0;
    char *summary = NULL;
    o.quick = take(&in, 2);
    o.program = "s";
    o.argument = (char *[]){"M", NULL};
    r.width = 40 + take(&in, 80);
    r.f = open_memstream(&summary, &size);
    steer_status status = put_summary(&r, &o, 1, &e);
    fclose(r.f);
    CHECK_THAT(!status, "%s", e.text);
    for (const char *s = summary, *end; (end = strchr(s, '\n')); s = end + 1) {
        string line = str("%.*s", (int)(end - s), s);
        CHECK_THAT(characters(line.s) <= min_int(r.width, SCREEN), "%d: %s", r.width, summary);
    }
    free(summary);
    free_report(&r);
}

/* ---------------------------------------------------------------- the library, called at random */

enum { PLANS = 3, EDITS = 4, BUFFER = 1024 };

typedef struct {
    steer_model *m;
    steer_context *c;
    steer_tracer *t;
    steer_limits limits; /* of c */
    steer_edit edits[PLANS][EDITS];
    steer_plan plans[PLANS];
    float v[32], odd[32], keep[8];
    float *start;       /* [BUFFER] */
    unsigned char *cut; /* [BUFFER] */
    int next[8];        /* positions that the first streams go on at */
    steer_error e;
} caller;

static void random_plan(caller *a, input *in) {
    int plan = take(in, PLANS);
    const float *const vectors[] = {NULL, a->v, a->v, a->odd};
    for (int i = 0; a->c && i < a->limits.streams; i++) /* no stream runs under it meanwhile */
        check_status(steer_begin(a->c, i, NULL, -1, NULL, &a->e), &a->e);
    memset(a->next, 0, sizeof a->next);
    unsigned parts = 0;
    for (int i = 0; i < EDITS; i++) {
        parts = take_byte(in);
        a->edits[plan][i] = (steer_edit){
            .kind = (steer_kind)(parts & 128 ? odd_int(in, 7) : 1 + take(in, STEER_START)),
            .layer = parts & 8 ? odd_int(in, 2) : 1,
            .from = parts & 16 ? odd_int(in, 4) : 0,
            .to = parts & 32 ? odd_int(in, 8) : 0,
            .coeff = (float)odd_number(in),
            .what = parts & 64 ? take_byte(in) : 1 + parts % 3,
            .v = vectors[parts & 3],
            .keep = parts & 4 ? a->keep : NULL,
            .cut = a->cut,
            .part = (parts & 192) == 192 ? odd_int(in, 3) : 0};
        if (a->edits[plan][i].kind == STEER_START && a->edits[plan][i].v)
            a->edits[plan][i].v = a->start;
    }
    a->plans[plan] = (steer_plan){take(in, 9) ? a->edits[plan] : NULL, take(in, EDITS + 1)};
    if (!a->plans[plan].edits)
        a->plans[plan].n = odd_int(in, 3);
    for (int i = 0; i < 8; i++)
        a->odd[i] = (float)odd_number(in);
    for (int i = 0; i < 64; i++)
        a->cut[i * 7] = (unsigned char)(parts >> (i & 7) & 1);
}

static void random_context(caller *a, input *in) {
    steer_limits l = {odd_int(in, 6), odd_int(in, 20), odd_int(in, 24),
                      odd_int(in, 8), odd_int(in, 12), odd_int(in, 2)};
    size_t bytes = steer_context_bytes(a->m, &l);
    if (bytes > (size_t)1 << 20)
        return;
    steer_context *c = steer_context_new(a->m, &l, &a->e);
    CHECK_THAT(c || a->e.code, "no context, and no error");
    CHECK_THAT(!c || bytes, "a context of no bytes");
    if (!c)
        return;
    steer_context_free(a->c);
    a->c = c;
    a->limits = c->limit;
    memset(a->next, 0, sizeof a->next);
}

static void random_run(caller *a, input *in) {
    enum { MOST = 64 };

    steer_row rows[MOST];
    int n = odd_int(in, 12);
    steer_tape tape = {.rows = odd_int(in, 8), .first = odd_int(in, 2)}, *taped = NULL;
    if (n > MOST && n <= a->limits.rows)
        n = MOST;
    for (int i = 0; i < MOST; i++) { /* most rows continue their stream */
        unsigned kind = i < n ? take_byte(in) : 0;
        int s = (int)(kind & 3);
        rows[i] = (steer_row){s, a->next[s], (int)(kind >> 2), (kind & 16) != 0, 0};
        if (kind >= 240)
            rows[i].stream = odd_int(in, 8);
        if (kind >= 248) {
            rows[i].pos = odd_int(in, 8);
            rows[i].token = odd_int(in, 300);
        }
        if (kind & 32 && i < n)
            rows[i].tape = odd_int(in, 8);
        if (i < n)
            a->next[s]++;
    }
    int sized = tape.rows > 0 && tape.rows <= 8 && tape.first >= 0 && tape.first <= 2;
    size_t width = sized ? (size_t)(a->m->config.layers - tape.first + 1) * (size_t)tape.rows : 1;
    float *space = zeros(width * 32, sizeof *space);
    if (sized)
        tape.resid = tape.q = tape.gate = space; /* of the widest; one may hold all */
    if (take(in, 2))
        taped = &tape;
    steer_status s = steer_run(a->c, rows, n, taped, &a->e);
    check_status(s, &a->e);
    int asked = odd_int(in, 12);
    const float *logits = steer_logits(a->c, asked);
    for (int i = 0; logits && i < a->m->config.vocab; i++)
        CHECK_THAT(s || isfinite(logits[i]), "logit %d of row %d", i, asked);
    for (int i = 0; i < 8; i++)
        a->next[i] = i < a->limits.streams ? a->c->streams[i].length : 0;
    free(space);
}

static int stop_after(void *user, int job, int token) {
    (void)job;
    (void)token;
    int *left = user;
    return *left < 1 || --*left == 0;
}

static void random_jobs(caller *a, input *in) {
    int prompt[128], out[3][128], ticks = odd_int(in, 16), n = min_int(odd_int(in, 4), 3);
    steer_job jobs[3] = {{0}};
    for (int i = 0; i < 128; i++)
        prompt[i] = i < 16 ? odd_int(in, 270) : i;
    for (int i = 0; i < 3; i++) {
        unsigned plan = take_byte(in) % (PLANS + 3);
        jobs[i] = (steer_job){.prompt = prompt + (i & 1),
                              .n_prompt = odd_int(in, 10),
                              .max_new = odd_int(in, 6),
                              .out = out[i],
                              .seed = take_byte(in),
                              .plan = plan < PLANS ? &a->plans[plan] : NULL,
                              .temperature = (float)odd_number(in),
                              .top_p = (float)odd_number(in)};
    }
    steer_status s = steer_generate(a->c, jobs, n, take(in, 2) ? stop_after : NULL, &ticks, &a->e);
    check_status(s, &a->e);
    for (int i = 0; i < n && !s; i++) {
        CHECK_THAT(jobs[i].n_out >= 0 && jobs[i].n_out <= max_int(jobs[i].max_new, 0), "%d of %d",
                   jobs[i].n_out, jobs[i].max_new);
        check_ids(a->m, out[i], jobs[i].n_out);
    }
    for (int i = 0; i < 8; i++)
        a->next[i] = i < a->limits.streams ? a->c->streams[i].length : 0;
}

static void random_text(caller *a, input *in) {
    const char *turns[3] = {"a", "the thing", ""};
    int ids[64], cap = min_int(odd_int(in, 64), 64), turn_count = odd_int(in, 4);
    char out[64];
    long n = steer_chat(a->m, take(in, 2) ? "a system" : NULL, turns, min_int(turn_count, 3), ids,
                        cap, &a->e);
    if (n < 0)
        check_status(a->e.code, &a->e);
    for (int i = 0; i < 64; i++)
        ids[i] = odd_int(in, 270);
    size_t room = (size_t)take(in, 65), length;
    length = steer_decode(a->m, ids, min_int(odd_int(in, 64), 64), room ? out : NULL, room);
    CHECK_THAT(!room || length >= room || strnlen(out, room) <= length, "no end");
    steer_graph g = steer_graph_of(a->m, odd_int(in, 2));
    CHECK_THAT(g.nodes >= 0 && g.slots >= 0 && g.edges >= 0, "a graph of less than nothing");
}

static void random_means(caller *a, input *in) {
    int *tokens[2], lengths[2], responses[2], ids[16], sign = odd_int(in, 3);
    steer_prompts p = {min_int(odd_int(in, 3), 2), tokens, lengths, NULL, NULL, NULL, NULL};
    size_t d = (size_t)a->m->config.d, layers = (size_t)a->m->config.layers;
    size_t n = 3 * (size_t)steer_eoi(a->m) * layers * d;
    double *mean = zeros(4 * n, sizeof *mean);
    int with_responses = take(in, 2);
    steer_sums sums[2] = {{.sum = mean}, {.sum = mean + n, .count = 1, .responses = 1}};
    for (int i = 0; i < 2 && with_responses; i++)
        sums[i].response = mean + (2 + i) * n;
    const int first[2] = {odd_int(in, 270), 5};
    const steer_behaviour behaviour = {.first = first, .n_first = 2};
    for (int i = 0; i < 16; i++)
        ids[i] = odd_int(in, 270);
    for (int i = 0; i < 2; i++) {
        tokens[i] = ids + i;
        lengths[i] = odd_int(in, 14);
    }
    for (int i = 0; i < 2; i++)
        if (lengths[i] > 14 && lengths[i] <= a->limits.positions)
            lengths[i] = 14;
    for (int i = 0; i < 2; i++) {
        int left = 15 - i - (lengths[i] > 0 && lengths[i] < 15 ? lengths[i] : 0);
        responses[i] = take(in, 4) ? take(in, left + 1) : odd_int(in, left + 1);
        if (responses[i] > left && responses[i] <= a->limits.positions)
            responses[i] = left;
    }
    if (with_responses)
        p.responses = responses;
    const steer_behaviour *b = take(in, 2) ? &behaviour : NULL;
    check_status(steer_means(a->c, &p, b, sign, &sums[0], &a->e), &a->e);
    steer_vector v = {0};
    int pos = take(in, 4) ? -take(in, 4) : odd_int(in, 4);
    steer_status s =
        steer_dim(&v, a->m, &sums[0], &sums[1], odd_int(in, 2), pos, (float)odd_number(in), &a->e);
    check_status(s, &a->e);
    if (!s) {
        const char *path = in_temporary("calls.vec");
        check_status(steer_vector_save(&v, path, &a->e), &a->e);
        steer_vector_free(&v);
        s = steer_vector_load(&v, path, a->m, 0, &a->e);
        check_status(s, &a->e);
    }
    if (!s)
        steer_vector_free(&v);
    free(mean);
    for (int i = 0; i < 8; i++)
        a->next[i] = i < a->limits.streams ? a->c->streams[i].length : 0;
}

static void random_tracer(caller *a, input *in) {
    int layer = odd_int(in, 2), positions = odd_int(in, 12), answers = odd_int(in, 6);
    int streams = odd_int(in, 4);
    if (answers > 256 && answers <= 1 << 24)
        return; /* would take much memory */
    if (streams > 64 && positions < 1 << 16)
        return;
    steer_tracer *t = steer_tracer_new(a->m, layer, positions, answers, streams, &a->e);
    if (!t)
        check_status(a->e.code, &a->e);
    if (!t)
        return;
    steer_tracer_free(a->t);
    a->t = t;
}

static void random_patching(caller *a, input *in) {
    int tokens[64], steps = odd_int(in, 3), n = min_int(odd_int(in, 3), PLANS), kind = take(in, 4);
    for (int i = 0; i < 64; i++)
        tokens[i] = i < 16 ? odd_int(in, 270) : i;
    steer_example x = {tokens, odd_int(in, 12), odd_int(in, 8), (float)odd_number(in), take(in, 2)};
    const float *v = take(in, 4) ? a->v : a->odd;
    if (x.n > 64 && x.n <= a->t->max)
        x.n = 64;
    if (steps > 8)
        steps = 8;
    size_t cells = edge_places(&a->t->graph);
    double *scores = zeros(scores_width(a->t), sizeof *scores), F[PLANS];
    double *edges = kind == 2 ? zeros(cells, sizeof *edges) : NULL;
    steer_status s;
    if (kind < 2)
        s = attribute(a->t, &x, v, odd_int(in, 3), steps, scores, &a->e);
    else if (kind == 2)
        s = steer_patch_exactly(a->t, &x, v, scores, edges, &a->e);
    else
        s = steer_faithfulness(a->t, &x, v, a->plans, n, F, NULL, &a->e);
    check_status(s, &a->e);
    free(scores);
    free(edges);
}

static void fuzz_calls(const uint8_t *data, size_t n) {
    static void (*const calls[])(caller *, input *) = {random_plan,   random_context, random_run,
                                                       random_jobs,   random_text,    random_means,
                                                       random_tracer, random_patching};
    input in = {data, data + n};
    caller a = {.m = seed_model(take(&in, 2))};
    a.start = zeros(BUFFER, sizeof *a.start);
    a.cut = zeros(BUFFER, 1);
    for (int i = 0; i < 32; i++)
        a.v[i] = (float)random_value(5, 70, 0, (uint64_t)i);
    for (int steps = 0; in.at < in.end && steps < 24; steps++) {
        int which = take(&in, 12);
        a.e = (steer_error){0};
        if (which < 8 && (a.c || which != 2) && (a.c || which != 3) && (a.c || which != 5) &&
            (a.t || which != 7))
            calls[which](&a, &in);
        else if (which == 8 && a.c) {
            int plan = take(&in, PLANS + 1), s = odd_int(&in, 4), twin = odd_int(&in, 5);
            steer_plan *p = plan < PLANS ? &a.plans[plan] : NULL;
            if (twin == 4)
                twin = -1;
            steer_status status = steer_begin(a.c, s, p, twin, NULL, &a.e);
            check_status(status, &a.e);
            if (!status && s < 8)
                a.next[s] = 0;
        } else if (which == 9 && a.c) {
            int from = odd_int(&in, 4), to = odd_int(&in, 4), count = odd_int(&in, 8);
            steer_status status = steer_fork(a.c, from, to, count, &a.e);
            check_status(status, &a.e);
            if (!status && to < 8)
                a.next[to] = count;
        }
    }
    steer_context_free(a.c);
    steer_tracer_free(a.t);
    free(a.start);
    free(a.cut);
}

/* ---------------------------------------------------------------- entries */

static const struct {
    const char *name;
    void (*run)(const uint8_t *, size_t);
} entries[] = {{"model", fuzz_model},   {"vector", fuzz_vector},   {"gguf", fuzz_gguf},
               {"npy", fuzz_npy},       {"circuit", fuzz_circuit}, {"prompts", fuzz_prompts},
               {"lists", fuzz_lists},   {"text", fuzz_text},       {"store", fuzz_store},
               {"report", fuzz_report}, {"calls", fuzz_calls}};

static int entry_number = -1;

/* The first inputs that are files of their own: models, a vector, a circuit. */
static void write_seeds(void) {
    char path[128];
    steer_error e = {0};
    for (int i = 0; i < MODELS; i++) {
        image f = small_image(seeds[i].type, seeds[i].kind);
        snprintf(path, sizeof path, "tests/corpus/model/%s", seeds[i].name);
        write_bytes(path, f.bytes, f.size);
        free(f.bytes);
    }
    steer_vector v;
    CHECK_THAT(!steer_vector_new(&v, seed_model(1), "dim", 1, -1, 1.5f, &e), "%s", e.text);
    for (int i = 0; i < v.d; i++)
        v.v[i] = (float)(i - 3);
    CHECK_THAT(!steer_vector_save(&v, "tests/corpus/vector/dim", &e), "%s", e.text);
    CHECK_THAT(!steer_vector_save(&v, "tests/corpus/gguf/one.gguf", &e), "%s", e.text);
    CHECK_THAT(!steer_vector_save(&v, "tests/corpus/npy/one.npy", &e), "%s", e.text);
    v.every = zeros((size_t)(v.layers + 1) * (size_t)v.d, sizeof *v.every);
    memcpy(v.every + v.d, v.v, sizeof *v.v * (size_t)v.d);
    memcpy(v.every + 2 * v.d, v.v, sizeof *v.v * (size_t)v.d);
    CHECK_THAT(!steer_vector_save(&v, "tests/corpus/vector/several", &e), "%s", e.text);
    CHECK_THAT(!steer_vector_save(&v, "tests/corpus/gguf/several.gguf", &e), "%s", e.text);
    CHECK_THAT(!steer_vector_save(&v, "tests/corpus/npy/several.npy", &e), "%s", e.text);
    steer_vector_free(&v);
    static const char circuit[] = "steer circuit 0123456789abcdef block 1\n"
                                  "0 s -> 1.0 q\n1 x\n5 y\n17\n18\n19\n";
    write_bytes("tests/corpus/circuit/small", circuit, sizeof circuit - 1);
}

static void remove_temporary(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", temporary);
    if (system(command))
        fprintf(stderr, "%s is left\n", temporary);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    const char *entry = getenv("ENTRY");
    (void)argc;
    (void)argv;
    if (entry && !strcmp(entry, "seeds")) {
        write_seeds();
        exit(0);
    }
    for (int i = 0; i < (int)(sizeof entries / sizeof *entries); i++)
        if (entry && !strcmp(entry, entries[i].name))
            entry_number = i;
    CHECK_THAT(entry_number >= 0, "ENTRY is none of the entries at the end of tests/fuzz.c");
    if (!access("/dev/shm", W_OK))
        snprintf(temporary, sizeof temporary, "/dev/shm/steer-fuzz-XXXXXX");
    CHECK_THAT(mkdtemp(temporary), "%s", temporary);
    atexit(remove_temporary);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    entries[entry_number].run(data, size);
    return 0;
}

/* What tests/test.c and tests/fuzz.c share: random models, small model files made from nothing,
 * files in a folder of this run's own, checkers of JSON and HTML. The file that includes it has
 * included steer.c and defined CHECK_THAT(condition, format, ...). */
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>

/* A whole file, a 0 behind its n bytes, to be freed; or NULL. (Inlined, gcc takes what points into
 * it for pointers to `data`.) */
static __attribute__((noinline)) char *read_file(const char *path, size_t *n, steer_error *e) {
    char *data = NULL;
    load_file(path, &data, n, e);
    return data;
}

/* ---------------------------------------------------------------- plans */

/* A plan said in one line, with memory for its edits and their hits. */
typedef struct {
    const float *add;
    float coeff;
    int layer, from, to; /* of each edit, but for a start's positions */
    unsigned freeze, remove;
    const float *ablate, *keep, *start;
    const unsigned char *cut;
    steer_edit edits[6];
    int64_t hits[6];
    steer_plan plan;
} changes;

/* The plan, its hits at 0. */
static const steer_plan *plan_of(changes *x) {
    steer_edit common = {.layer = x->layer, .from = x->from, .to = x->to, .coeff = x->coeff};
    int n = 0;
    for (int kind = STEER_ADD; kind <= STEER_START; kind++) {
        steer_edit edit = common;
        edit.kind = (steer_kind)kind;
        if (kind == STEER_FREEZE)
            edit.what = x->freeze;
        if (kind == STEER_REMOVE)
            edit.what = x->remove;
        if (kind == STEER_ADD)
            edit.v = x->add;
        if (kind == STEER_ABLATE)
            edit.v = x->ablate;
        if (kind == STEER_ABLATE)
            edit.keep = x->keep;
        if (kind == STEER_CUT)
            edit.cut = x->cut;
        if (kind == STEER_START) {
            edit.v = x->start;
            edit.from = edit.to = 0;
        }
        x->hits[n] = 0;
        if (edit.what || edit.v || edit.cut)
            x->edits[n++] = edit;
    }
    x->plan = (steer_plan){x->edits, n};
    return &x->plan;
}

/* A steer_plan of these edits, as it begins. */
#define PLAN(...)                       \
    {(const steer_edit[]){__VA_ARGS__}, \
     sizeof((const steer_edit[]){__VA_ARGS__}) / sizeof(steer_edit)}

/* How often its edit of this kind was applied. */
static long long hits_of(const changes *x, steer_kind kind) {
    for (int i = 0; i < x->plan.n; i++)
        if (x->edits[i].kind == kind)
            return x->hits[i];
    return 0;
}

/* ---------------------------------------------------------------- refusals */

/* What must end with this status, and a sentence with this word of the reason. */
static void check_refusal(const char *what, steer_status got, steer_status code,
                          const steer_error *e, const char *word) {
    CHECK_THAT(got == code && e->code == code && strstr(e->text, word),
               "%s: status %d, error %d, \"%s\"", what, (int)got, (int)e->code, e->text);
}

/* ---------------------------------------------------------------- random models */

/* Element i of a random tensor, in [-1, 1): the rule is in tools/reference.py. */
static double random_value(uint64_t seed, uint64_t kind, uint64_t layer, uint64_t i) {
    uint64_t z = (seed << 56 ^ kind << 48 ^ layer << 40 ^ i) + 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    return 2 * ((double)(z >> 40) * 0x1p-24) - 1;
}

static weight random_matrix(int seed, int kind, int layer, int rows, int cols, double scale,
                            dtype type) {
    size_t n = (size_t)rows * cols;
    float *f = malloc(n * sizeof *f);
    for (size_t i = 0; i < n; i++)
        f[i] = (float)(random_value(seed, kind, layer, i) * scale);
    if (type == Q8 && cols % 32)
        type = BF16;
    if (type == F32)
        return (weight){f, NULL, F32, rows, cols};
    void *data = malloc(n * 2);
    float *scales = malloc(n / 32 * sizeof *scales + 1);
    for (size_t i = 0; i < n && type == BF16; i++) { /* to nearest, ties to even */
        uint32_t u;
        memcpy(&u, &f[i], 4);
        ((uint16_t *)data)[i] = (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
    }
    for (size_t g = 0; g < n / 32 && type == Q8; g++) {
        float top = 0;
        for (int i = 0; i < 32; i++)
            top = fmaxf(top, fabsf(f[g * 32 + i]));
        scales[g] = top / 127;
        for (int i = 0; i < 32; i++)
            ((int8_t *)data)[g * 32 + i] = (int8_t)rintf(f[g * 32 + i] / (top > 0 ? scales[g] : 1));
    }
    free(f);
    return (weight){data, scales, type, rows, cols};
}

static void free_matrix(weight *w) {
    free((void *)(uintptr_t)w->data);
    free((void *)(uintptr_t)w->scale);
}

static const float *random_vector(int seed, int kind, int layer, int n, double center,
                                  double scale) {
    float *f = malloc((size_t)n * sizeof *f);
    for (int i = 0; i < n; i++)
        f[i] = (float)(center + scale * random_value(seed, kind, layer, i));
    return f;
}

/* A model without a tokenizer, as tools/reference.py makes it from the same numbers. */
static steer_model *random_model(int seed, double base, steer_config c, dtype type) {
    steer_model *m = calloc(1, sizeof *m);
    c.n_eot = 1;
    c.max_seq = 512;
    snprintf(c.name, sizeof c.name, "random %d", seed);
    m->config = c;
    m->eoi = 1;
    m->blocks = calloc((size_t)c.layers, sizeof *m->blocks);
    int qd = c.heads * c.head_dim, kd = c.kv_heads * c.head_dim;
    double gain = 1 - c.norm_offset;
    m->embed = random_matrix(seed, 0, 0, c.vocab, c.d, 1.0 / c.embed_scale, type);
    m->unembed = c.tied ? m->embed : random_matrix(seed, 1, 0, c.vocab, c.d, sqrt(3.0 / c.d), type);
    m->final_norm = random_vector(seed, 2, 0, c.d, gain, 0.25);
    float *freq = malloc(sizeof *freq * (size_t)c.head_dim);
    for (int i = 0; i < c.head_dim / 2; i++)
        freq[i] = (float)pow(base, -2.0 * i / c.head_dim);
    m->rope_freq = freq;
    float *local = c.local_rope ? malloc(sizeof *local * (size_t)c.head_dim) : NULL;
    for (int i = 0; local && i < c.head_dim / 2; i++)
        local[i] = (float)pow(10, -2.0 * i / c.head_dim);
    m->rope_local = local;
    for (int b = 0; b < c.layers; b++) {
        block *w = &m->blocks[b];
        w->attn_norm = random_vector(seed, 16, b, c.d, gain, 0.25);
        w->q = random_matrix(seed, 17, b, qd, c.d, sqrt(3.0 / c.d), type);
        w->k = random_matrix(seed, 18, b, kd, c.d, sqrt(3.0 / c.d), type);
        w->v = random_matrix(seed, 19, b, kd, c.d, sqrt(3.0 / c.d), type);
        if (c.qkv_bias) {
            w->q_bias = random_vector(seed, 20, b, qd, 0, 0.5);
            w->k_bias = random_vector(seed, 21, b, kd, 0, 0.5);
            w->v_bias = random_vector(seed, 22, b, kd, 0, 0.5);
        }
        w->o = random_matrix(seed, 23, b, c.d, qd, sqrt(3.0 / qd), type);
        w->post_attn_norm = random_vector(seed, 24, b, c.d, gain, 0.25);
        w->mlp_norm = random_vector(seed, 25, b, c.d, gain, 0.25);
        w->gate = random_matrix(seed, 26, b, c.ff, c.d, sqrt(3.0 / c.d), type);
        w->up = random_matrix(seed, 27, b, c.ff, c.d, sqrt(3.0 / c.d), type);
        w->down = random_matrix(seed, 28, b, c.d, c.ff, sqrt(3.0 / c.ff), type);
        w->post_mlp_norm = random_vector(seed, 29, b, c.d, gain, 0.25);
        if (c.qk_norm) {
            w->q_norm = random_vector(seed, 30, b, c.head_dim, gain, 0.25);
            w->k_norm = random_vector(seed, 31, b, c.head_dim, gain, 0.25);
        }
    }
    return m;
}

static void free_random_model(steer_model *m) {
    for (int b = 0; m && b < m->config.layers; b++) {
        block *w = &m->blocks[b];
        weight *const matrices[] = {&w->q, &w->k, &w->v, &w->o, &w->gate, &w->up, &w->down};
        const float *const vectors[] = {w->attn_norm,     w->mlp_norm, w->post_attn_norm,
                                        w->post_mlp_norm, w->q_bias,   w->k_bias,
                                        w->v_bias};
        for (int i = 0; i < 7; i++) {
            free_matrix(matrices[i]);
            free((void *)(uintptr_t)vectors[i]);
        }
        free((void *)(uintptr_t)w->q_norm);
        free((void *)(uintptr_t)w->k_norm);
    }
    if (!m)
        return;
    if (!m->config.tied)
        free_matrix(&m->unembed);
    free_matrix(&m->embed);
    free((void *)(uintptr_t)m->final_norm);
    free((void *)(uintptr_t)m->rope_freq);
    free((void *)(uintptr_t)m->rope_local);
    free(m->blocks);
    free(m);
}

/* ---------------------------------------------------------------- files, children */

static uint64_t dice = 1; /* random_unit's state: every test begins with the same */

static int roll(int n) {
    return (int)(random_unit(&dice) * n);
}

static void set_threads(int n) {
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

static char temporary[64] = "/tmp/steer-test-XXXXXX"; /* a folder for one run of the tests */

static const char *in_temporary(const char *name) {
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", temporary, name);
    return path;
}

/* In place: thousands of small files cut to nothing and written anew are slow on a real disk. */
static void write_bytes(const char *path, const void *bytes, size_t n) {
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    struct stat st;
    int ok = fd >= 0 && !fstat(fd, &st) && pwrite(fd, bytes, n, 0) == (ssize_t)n;
    if (ok && st.st_size != (off_t)n)
        ok = !ftruncate(fd, (off_t)n);
    if (fd >= 0)
        close(fd);
    CHECK_THAT(ok, "%s can't be written", path);
}

static int exists(const char *path) {
    return access(path, F_OK) == 0;
}

/* Run f in a process of its own, for at most `limit` seconds; what ended it, or NULL if f
 * returned. */
static const char *in_child(void (*f)(void *), void *argument, unsigned limit) {
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        alarm(limit);
        f(argument);
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGALRM ? "it does not end" : "a signal ended it";
    return WEXITSTATUS(status) ? "it failed" : NULL;
}

/* A small model file, made here: every byte a token, a few merges, four special tokens, random
 * weights. */
enum { SMALL_GEMMA = 1, SMALL_NFC = 2, SMALL_TINY = 4 }; /* tiny: d 8, for the fuzzer */

/* A refuser has no grammar, room for long prompts, and many tokens that say "I cannot", so that
 * some of its random answers refuse. */
enum { SMALL_REFUSER = 8, REFUSING_TOKENS = 60 };

enum { HEAD = 512, RECORD_BYTES = 40, VECTOR_HEAD = 256 }; /* as tools/binfile.py describes them */

typedef struct {
    unsigned char *bytes;
    size_t size, sections, data; /* where the tokenizer's sections and the tensors begin */
} image;

static void put_bytes(unsigned char **p, const void *data, size_t n) {
    memcpy(*p, data, n);
    *p += n;
}

static void put_word(unsigned char **p, uint32_t v) {
    put_bytes(p, &v, 4);
}

static void emit(image *f, const void *p, size_t n) {
    if (n)
        memcpy(f->bytes + f->size, p, n);
    f->size += n;
}

static void seal_head(unsigned char *bytes, size_t size) { /* the checksum of the head, made anew */
    uint64_t data;
    memcpy(&data, bytes + 32, 8);
    if (data < HEAD || data > size)
        return;
    memset(bytes + 24, 0, 4);
    uint32_t crc = crc32_of(0, bytes, (size_t)data);
    memcpy(bytes + 24, &crc, 4);
}

static void seal(image *f) {
    uint32_t crc = crc32_of(0, f->bytes + f->data, f->size - f->data);
    memcpy(f->bytes + 28, &crc, 4);
    seal_head(f->bytes, f->size);
}

static void small_tensor(image *f, int *n, int kind, int layer, int rows, int cols, dtype type,
                         double center) {
    unsigned char *record = f->bytes + HEAD + RECORD_BYTES * (*n)++;
    uint64_t at = f->size, bytes, zero = 0;
    if (cols) {
        weight w = random_matrix(99, kind, layer, rows, cols, sqrt(3.0 / cols), type);
        type = w.type;
        size_t count = (size_t)rows * (size_t)cols;
        static const size_t bytes_of[] = {[F32] = 4, [BF16] = 2, [Q8] = 1};
        emit(f, w.data, count * bytes_of[type]);
        if (type == Q8)
            emit(f, w.scale, count / 32 * 4);
        free_matrix(&w);
    } else {
        const float *x = random_vector(99, kind, layer, rows, center, 0.25);
        type = F32;
        emit(f, x, (size_t)rows * 4);
        free((void *)(uintptr_t)x);
    }
    bytes = f->size - at;
    put_word(&record, (uint32_t)kind | (uint32_t)type << 16);
    put_word(&record, (uint32_t)layer);
    put_word(&record, (uint32_t)rows);
    put_word(&record, (uint32_t)cols);
    put_bytes(&record, &at, 8);
    put_bytes(&record, &bytes, 8);
    put_bytes(&record, &zero, 8);
    f->size = round_up(f->size, ALIGN);
}

static const struct {
    uint32_t counts[4], rows[17][3];
} small_nfc = {{3, 8, 6, 0},
               {{0x300, 0x314, 230}, /* combining classes */
                {0x323, 0x323, 220},
                {0x327, 0x327, 202},
                {0xC5, 'A', 0x30A}, /* decompositions */
                {0xC9, 'E', 0x301},
                {0xE9, 'e', 0x301},
                {0x344, 0x308, 0x301},
                {0x1E0B, 'd', 0x307},
                {0x1E0D, 'd', 0x323},
                {0x212B, 0xC5, 0}, /* the Angstrom sign */
                {0xFB1D, 0x5D9, 0x5B4},
                {'A', 0x30A, 0xC5}, /* composites, one of them (1E0E) made up */
                {'E', 0x301, 0xC9},
                {'d', 0x307, 0x1E0B},
                {'d', 0x323, 0x1E0D},
                {'e', 0x301, 0xE9},
                {0x1E0D, 0x307, 0x1E0E}}};

static image small_image(dtype type, int kind) {
    static const char *const merges[][2] = {{"t", "h"},  {"th", "e"}, {"i", "n"},
                                            {"in", "g"}, {" ", "a"},  {" ", "the"},
                                            {"a", "n"},  {"an", "d"}, {"th", "ing"}};
    static const char *const specials[] = {"<bos>", "<user>", "<end>", "<assistant>", "<unused>"};
    static const uint32_t unicode[][3] = {
        {9, 13, SPACE},           {32, 32, SPACE},         {'0', '9', NUMBER},
        {'A', 'Z', LETTER},       {'a', 'z', LETTER},      {0xA0, 0xA0, SPACE},
        {0xC0, 0x24F, LETTER},    {0x300, 0x36F, MARK},    {0x400, 0x4FF, LETTER},
        {0x4E00, 0x9FFF, LETTER}, {0xAC00, 0xD7A3, LETTER}};
    static const char template[] =
        "<bos>\0<user>system\n\0\0<end>\n\0<user>\n\0<end>\n\0<assistant>\n\0<end>\n";
    static const char grammar[] = "o Sure, this is how to {T}.\ns rest\ns look at the {T} again\n";

    enum {
        MERGED = sizeof merges / sizeof *merges,
        VOCAB = 256 + MERGED + 5,
        MOST = VOCAB + REFUSING_TOKENS
    };

    int refuser = kind & SMALL_REFUSER;
    uint32_t vocab = refuser ? MOST : VOCAB;
    int tiny = kind & SMALL_TINY, gemma = kind & SMALL_GEMMA, tensors = 0;
    int d = tiny ? 8 : 16;
    if (type == Q8)
        d = 32;
    steer_config c = {.d = d,
                      .layers = 2,
                      .heads = 2,
                      .kv_heads = 1,
                      .head_dim = d / 2,
                      .ff = tiny ? 8 : 32,
                      .vocab = (int)vocab,
                      .max_seq = refuser ? 512 : 64,
                      .tied = !gemma && !refuser,
                      .norm_eps = 1e-5f,
                      .embed_scale = 1,
                      .query_scale = 0.3f};
    if (gemma) {
        c.qkv_bias = c.post_norms = c.gelu = 1;
        c.window = 4;
        c.window_every = 2;
        c.norm_offset = 1;
        c.attn_cap = 20;
        c.final_cap = 30;
    }
    uint32_t offset[MOST + 1] = {0}, bytes_of[256], merge[MERGED][4];
    unsigned char types[MOST] = {0};
    char names[MOST * 16];
    for (uint32_t i = 0; i < vocab; i++) {
        char *name = names + offset[i];
        int n = 1;
        if (i < 256) {
            *name = (char)i;
            bytes_of[i] = i;
        } else if (i < 256 + MERGED)
            n = sprintf(name, "%s%s", merges[i - 256][0], merges[i - 256][1]);
        else if (i >= VOCAB)
            n = sprintf(name, " I cannot");
        else {
            n = sprintf(name, "%s", specials[i - 256 - MERGED]);
            types[i] = i + 1 == VOCAB ? 2 : 1;
        }
        offset[i + 1] = offset[i] + (uint32_t)n;
    }
    for (uint32_t i = 0; i < MERGED; i++) {
        merge[i][2] = i;
        merge[i][3] = 256 + i;
        for (int side = 0; side < 2; side++)
            for (uint32_t t = 0; t < 256 + MERGED; t++)
                if (offset[t + 1] - offset[t] == strlen(merges[i][side]) &&
                    !memcmp(names + offset[t], merges[i][side], strlen(merges[i][side])))
                    merge[i][side] = t;
    }
    for (int i = 1; i < MERGED; i++) /* by (left, right) */
        for (int j = i; j && (merge[j][0] < merge[j - 1][0] ||
                              (merge[j][0] == merge[j - 1][0] && merge[j][1] < merge[j - 1][1]));
             j--)
            for (int k = 0; k < 4; k++) {
                uint32_t t = merge[j][k];
                merge[j][k] = merge[j - 1][k];
                merge[j - 1][k] = t;
            }

    const struct {
        const void *p;
        size_t n;
    } sections[SECTIONS] = {{offset, (vocab + 1) * sizeof *offset},
                            {names, offset[vocab]},
                            {types, vocab},
                            {bytes_of, sizeof bytes_of},
                            {merge, sizeof merge},
                            {unicode, sizeof unicode},
                            {template, sizeof template},
                            {grammar, refuser ? 0 : sizeof grammar - 1},
                            {&small_nfc, kind & SMALL_NFC ? sizeof small_nfc : 0},
                            {NULL, 0}};

    image f = {.bytes = zeros(1 << 18, 1)};
    int expected = 3 + !c.tied + c.layers * (9 + 3 * c.qkv_bias + 2 * c.post_norms);
    uint64_t at[SECTIONS][2];
    f.size = f.sections = round_up((size_t)(HEAD + expected * RECORD_BYTES), ALIGN);
    for (int i = 0; i < SECTIONS; i++) {
        at[i][0] = f.size;
        at[i][1] = sections[i].n;
        emit(&f, sections[i].p, sections[i].n);
        f.size = round_up(f.size, ALIGN);
    }
    f.data = f.size;
    int qd = c.heads * c.head_dim, kd = c.kv_heads * c.head_dim;
    double gain = 1 - c.norm_offset;
    small_tensor(&f, &tensors, 0, 0, c.vocab, d, type, 0);
    if (!c.tied)
        small_tensor(&f, &tensors, 1, 0, c.vocab, d, type, 0);
    small_tensor(&f, &tensors, 2, 0, d, 0, F32, gain);
    small_tensor(&f, &tensors, 3, 0, c.head_dim / 2, 0, F32, 0.5);
    for (int b = 0; b < c.layers; b++) {
        small_tensor(&f, &tensors, 16, b, d, 0, F32, gain);
        small_tensor(&f, &tensors, 17, b, qd, d, type, 0);
        small_tensor(&f, &tensors, 18, b, kd, d, type, 0);
        small_tensor(&f, &tensors, 19, b, kd, d, type, 0);
        for (int i = 0; i < 3 && c.qkv_bias; i++)
            small_tensor(&f, &tensors, 20 + i, b, i ? kd : qd, 0, F32, 0);
        small_tensor(&f, &tensors, 23, b, d, qd, type, 0);
        if (c.post_norms)
            small_tensor(&f, &tensors, 24, b, d, 0, F32, gain);
        small_tensor(&f, &tensors, 25, b, d, 0, F32, gain);
        small_tensor(&f, &tensors, 26, b, c.ff, d, type, 0);
        small_tensor(&f, &tensors, 27, b, c.ff, d, type, 0);
        small_tensor(&f, &tensors, 28, b, d, c.ff, type, 0);
        if (c.post_norms)
            small_tensor(&f, &tensors, 29, b, d, 0, F32, gain);
    }
    unsigned char *p = f.bytes;
    uint64_t size = f.size, data = f.data;
    put_bytes(&p, "STEERMDL", 8);
    put_word(&p, STEER_MODEL_FORMAT);
    put_word(&p, (uint32_t)tensors);
    put_bytes(&p, &size, 8);
    put_word(&p, 0);
    put_word(&p, 0);
    put_bytes(&p, &data, 8);
    snprintf((char *)p, 64, "small %d", kind);
    p += 64;
    c.pretok = kind & SMALL_NFC ? 2 : 1;
    c.nfc = kind & SMALL_NFC ? 1 : 0;
    c.trim = gemma ? 1 : 0;
    c.n_eot = 1;
    c.n_first = 2;
    c.eot[0] = 256 + MERGED + 2;
    c.first[0] = 'I';
    c.first[1] = 'A';
    c.site_layer = 1;
    c.site_pos = -1;
    c.site_coeff = 1;
    put_bytes(&p, &c, CONFIG_BYTES); /* the struct is the format */
    put_bytes(&p, at, sizeof at);
    seal(&f);
    return f;
}

/* What a tokenizer has to take: look-alikes, a broken byte, digits, marks, line breaks. */
static const char hard_text[] =
    "the <end> and caf\xC3\xA9 \xFF 42 in\n\nthing, \xCC\x81 e\xCC\x81 don't\r\n ";
static const char judged_text[] = "Sure, this is how to x. First, rest. Then, rest. Finally, rest.";

static steer_model *open_image(const image *f) {
    steer_error e = {0};
    steer_model *m = steer_open_memory(f->bytes, f->size, "small", &e);
    CHECK_THAT(m, "%s", e.text);
    return m;
}

/* ---------------------------------------------------------------- checkers */

/* What follows one JSON value, or NULL: the grammar of RFC 8259, UTF-8 included. */
static const char *after_value(const char *s, int depth);

static const char *skip_space(const char *s) {
    return s + strspn(s, " \t\r\n");
}

static const char *after_string(const char *s) {
    if (*s++ != '"')
        return NULL;
    for (const char *end = s + strlen(s); *s && *s != '"';) {
        int length;
        if ((unsigned char)*s < 32 || code_point(s, end, &length) < 0)
            return NULL;
        if (*s != '\\')
            s += length;
        else if (s[1] == 'u') {
            for (int i = 2; i < 6; i++)
                if (!isxdigit((unsigned char)s[i]))
                    return NULL;
            s += 6;
        } else if (s[1] && strchr("\"\\/bfnrt", s[1]))
            s += 2;
        else
            return NULL;
    }
    return *s ? s + 1 : NULL;
}

static const char *after_number(const char *s) {
    s += *s == '-';
    size_t n = strspn(s, "0123456789");
    if (!n || (n > 1 && *s == '0'))
        return NULL;
    s += n;
    if (*s == '.' && !(n = strspn(s + 1, "0123456789")))
        return NULL;
    if (*s == '.')
        s += 1 + n;
    if (*s == 'e' || *s == 'E') {
        s += 1 + (s[1] == '+' || s[1] == '-');
        if (!(n = strspn(s, "0123456789")))
            return NULL;
        s += n;
    }
    return s;
}

static const char *after_value(const char *s, int depth) {
    if (depth > 20)
        return NULL;
    if (*s == '"')
        return after_string(s);
    if (!strncmp(s, "null", 4) || !strncmp(s, "true", 4))
        return s + 4;
    if (!strncmp(s, "false", 5))
        return s + 5;
    if (*s != '[' && *s != '{')
        return after_number(s);
    char close = *s == '[' ? ']' : '}';
    int first = 1;
    for (s = skip_space(s + 1); s && *s != close; first = 0) {
        if (!first && *s++ != ',')
            return NULL;
        s = skip_space(s);
        if (close == '}' && (!(s = after_string(s)) || *(s = skip_space(s)) != ':'))
            return NULL;
        if (close == '}')
            s = skip_space(s + 1);
        if ((s = after_value(s, depth + 1)))
            s = skip_space(s);
    }
    return s ? s + 1 : NULL;
}

static int is_json(const char *s) {
    const char *end = after_value(skip_space(s), 0);
    return end && !*skip_space(end);
}

/* The string at s, decoded; code points below 256 of \u only. */
static void decode_json(const char *s, char *to) {
    for (s++; *s && *s != '"'; s++)
        if (*s == '\\' && s[1] == 'u') {
            *to++ = (char)strtol((char[]){s[2], s[3], s[4], s[5], 0}, NULL, 16);
            s += 5;
        } else if (*s == '\\') {
            *to = *++s;
            if (*s == 'n')
                *to = '\n';
            if (*s == 't')
                *to = '\t';
            to++;
        } else
            *to++ = *s;
    *to = 0;
}

static int occurrences(const char *s, const char *of) {
    int n = 0;
    while ((s = strstr(s, of))) {
        n++;
        s++;
    }
    return n;
}

/* A report as JSON, in a page if there is one, *n bytes and a 0; NULL where it can't. */
static char *report_text(const report *r, const char *page, size_t *n) {
    char *text = NULL;
    FILE *f = r->no_memory ? NULL : open_memstream(&text, n);
    if (!f)
        return NULL;
    write_report(f, r, page);
    fclose(f);
    return text;
}

/* A number of a table's row by its column's name; NAN: there is none. */
static double value_of(const report *r, const entry *t, int i, const char *name) {
    for (int k = 0; k < t->n_columns; k++)
        if (!strcmp(row_data(r, t, -1)[k].text, name))
            return row_data(r, t, i)[k].value;
    return NAN;
}

/* ---------------------------------------------------------------- tracers */

static steer_status new_tracer(tracer **t, const steer_model *m, int layer, int max, int answers,
                               int cut_streams, steer_error *e) {
    *t = steer_tracer_new(m, layer, max, answers, cut_streams, e);
    return *t ? STEER_OK : e->code;
}

static void free_tracer(tracer **t) {
    steer_tracer_free(*t);
    *t = NULL;
}

/* ---------------------------------------------------------------- golden files, by line */

/* A line's first word, at most 31 characters; what follows it, without the line break. */
static char *after_word(char *line, char word[32]) {
    int at = 0;
    *word = 0;
    sscanf(line, "%31s%n", word, &at);
    line[at + (int)strcspn(line + at, "\n")] = 0;
    return line + at;
}

/* A golden file, read line by line. */
typedef struct {
    FILE *f;
    char *line, word[32], *rest; /* the line's first word, and what follows it */
    size_t size;
} golden_lines;

static golden_lines open_golden(const char *path) {
    golden_lines g = {.f = fopen(path, "r")};
    CHECK_THAT(g.f, "%s is missing", path);
    return g;
}

/* Its next line; 0 behind the last one, when all is closed. */
static int golden_line(golden_lines *g) {
    if (g->f && getline(&g->line, &g->size, g->f) > 0) {
        g->rest = after_word(g->line, g->word);
        return 1;
    }
    if (g->f)
        fclose(g->f);
    free(g->line);
    *g = (golden_lines){0};
    return 0;
}

/* The next number of *s, behind which *s then stands; 0: there is none. */
static int parse_number(const char **s, double *x) {
    char *end;
    *x = strtod(*s, &end);
    int found = end != *s;
    *s = end;
    return found;
}

static int parse_doubles(const char *s, double *out, int cap) {
    int n = 0;
    while (n < cap && parse_number(&s, &out[n]))
        n++;
    return n;
}

static int parse_floats(const char *s, float *out, int cap) {
    int n = 0;
    for (double x; n < cap && parse_number(&s, &x); n++)
        out[n] = (float)x;
    return n;
}

static int parse_ints(const char *s, int *out, int cap) {
    int n = 0;
    for (double x; n < cap && parse_number(&s, &x); n++)
        out[n] = (int)x;
    return n;
}

static size_t parse_hex(const char *s, char *out, size_t cap) {
    size_t n = 0;
    for (unsigned v; n < cap && isxdigit((unsigned char)s[0]) && sscanf(s, "%2x", &v) == 1; s += 2)
        out[n++] = (char)v;
    return n;
}

/* The numbers of a line "random SEED BASE ...". */
static steer_config random_config(const float *p) {
    return (steer_config){.d = (int)p[2],
                          .layers = (int)p[3],
                          .heads = (int)p[4],
                          .kv_heads = (int)p[5],
                          .head_dim = (int)p[6],
                          .ff = (int)p[7],
                          .vocab = (int)p[8],
                          .qkv_bias = (int)p[9],
                          .post_norms = (int)p[10],
                          .gelu = (int)p[11],
                          .tied = (int)p[12],
                          .window = (int)p[13],
                          .window_every = (int)p[14],
                          .norm_eps = p[15],
                          .norm_offset = p[16],
                          .attn_cap = p[17],
                          .final_cap = p[18],
                          .embed_scale = p[19],
                          .query_scale = p[20],
                          .qk_norm = (int)p[21],
                          .local_rope = (int)p[22]};
}

/* ---------------------------------------------------------------- errors, in double */

typedef struct {
    double largest, error;
} fit; /* of a list of numbers: relative to its largest */

/* A number held against another; a NaN is infinitely wrong. */
static void hold(fit *f, double got, double expected) {
    double off = fabs(got - expected);
    f->largest = fmax(f->largest, fabs(expected));
    f->error = fmax(f->error, isnan(off) ? INFINITY : off);
}

/* The largest error, relative to the largest number. */
static double misfit(const fit *f) {
    return f->error / fmax(f->largest, 1e-12);
}

static double mean_of(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    return sum / n;
}

static float *floats(int seed, int kind, size_t n, double scale) {
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(scale * random_value((uint64_t)seed, (uint64_t)kind, 7, i));
    return x;
}

static double *doubles(const float *from, size_t n) {
    double *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = from ? (double)from[i] : 0;
    return x;
}

/* ---------------------------------------------------------------- models and vectors */

/* Random models, each made once. Four of width 64: windows and caps, int8, and biases with an
 * untied unembedding; and small ones of the three families. */
enum { TEST_MODELS = 4, FAMILIES = 3 };

static const char *const model_names[] = {"llama", "gemma", "q8", "bf16 with biases"};
static const char *const family_names[] = {"llama", "qwen2", "gemma"};

static steer_model *random_model_of(int which) {
    enum { GEMMA = 1, BIASED = 2 };

    static const struct {
        int seed, d, layers, heads, kv_heads, head_dim, ff, vocab, kind, window;
        float eps, attn_cap, embed_scale, query_scale;
        dtype type;
    } made_of[TEST_MODELS + FAMILIES] = {
        {70, 64, 4, 4, 2, 16, 176, 96, 0, 0, 1e-5f, 0, 1, 0.25f, F32},
        {71, 64, 4, 4, 2, 24, 176, 96, GEMMA, 8, 1e-5f, 20, 1, 0.25f, F32},
        {72, 64, 4, 6, 2, 32, 192, 96, 0, 0, 1e-5f, 0, 1, 0.25f, Q8},
        {73, 64, 4, 4, 1, 16, 176, 101, BIASED, 0, 1e-5f, 0, 1, 0.25f, BF16},
        {90, 16, 4, 4, 2, 8, 32, 48, 0, 0, 1e-5f, 0, 1, 0.353553391f, F32},
        {91, 20, 3, 4, 1, 6, 36, 61, BIASED, 0, 1e-6f, 0, 1, 0.353553391f, F32},
        {92, 16, 4, 4, 2, 8, 32, 48, GEMMA, 4, 1e-5f, 2, 4, 0.7f, F32}};

    static steer_model *made[TEST_MODELS + FAMILIES];

    steer_config c = {.d = made_of[which].d,
                      .layers = made_of[which].layers,
                      .heads = made_of[which].heads,
                      .kv_heads = made_of[which].kv_heads,
                      .head_dim = made_of[which].head_dim,
                      .ff = made_of[which].ff,
                      .vocab = made_of[which].vocab,
                      .tied = made_of[which].kind != BIASED,
                      .qkv_bias = made_of[which].kind == BIASED,
                      .norm_eps = made_of[which].eps,
                      .attn_cap = made_of[which].attn_cap,
                      .embed_scale = made_of[which].embed_scale,
                      .query_scale = made_of[which].query_scale,
                      .window = made_of[which].window};
    if (made_of[which].kind == GEMMA) {
        c.post_norms = c.gelu = 1;
        c.norm_offset = 1;
        c.final_cap = 30;
        c.window_every = 2;
    }
    if (!made[which])
        made[which] = random_model(made_of[which].seed, 10000, c, made_of[which].type);
    return made[which];
}

static steer_model *test_model(int kind) {
    return random_model_of(kind);
}

static steer_model *family(int kind) {
    return random_model_of(TEST_MODELS + kind);
}

static steer_vector random_dim(const steer_model *m, int seed) {
    steer_vector v = {0};
    steer_vector_new(&v, m, "dim", 1, -1, 1.5f, NULL);
    for (int i = 0; i < v.d; i++)
        v.v[i] = (float)random_value((uint64_t)seed, 60, 0, (uint64_t)i);
    for (int i = 0; i < 3 * v.layers; i++)
        v.keep[i] = (float)random_value((uint64_t)seed, 61, 0, (uint64_t)i);
    return v;
}

static void seal_vector(unsigned char *bytes, size_t n) {
    memset(bytes + 12, 0, 4);
    uint32_t crc = crc32_of(0, bytes, n);
    memcpy(bytes + 12, &crc, 4);
}

static void random_tokens(int *tokens, int n, int vocab) {
    for (int i = 0; i < n; i++)
        tokens[i] = roll(vocab);
}

/* ---------------------------------------------------------------- running programs */

static steer_model *open_or_fail(const char *path) {
    steer_error e = {0};
    steer_model *m = steer_open(path, 0, &e);
    CHECK_THAT(m, "%s", e.text);
    return m;
}

static char shown[1 << 16], complained[1 << 14];

static void read_text(const char *path, char *text, size_t cap) {
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, cap - 1, f) : 0;
    text[n] = 0;
    if (f)
        fclose(f);
}

/* Run a program; its exit status, or 256 + the signal that ended it. */
static int run_program(const char *program, const char *arguments, const char *input) {
    char command[2048];
    write_bytes(in_temporary("in"), input, strlen(input));
    snprintf(command, sizeof command, "%s %s <%s/in >%s/out 2>%s/err", program, arguments,
             temporary, temporary, temporary);
    fflush(stdout);
    int status = system(command);
    read_text(in_temporary("out"), shown, sizeof shown);
    read_text(in_temporary("err"), complained, sizeof complained);
    if (strstr(complained, "Sanitizer") || strstr(complained, "runtime error"))
        CHECK_THAT(0, "%s %s:\n%.1500s", program, arguments, complained);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static int lines_of(const char *text) {
    int n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

/* The output of a command (the caller's to free, NULL if none can be read) and its exit status. */
static char *output_of(const char *command, int *status) {
    FILE *f = popen(command, "r");
    size_t size = 0;
    char *text = NULL;
    if (f && getdelim(&text, &size, 0, f) < 0)
        *(text = realloc(text, 1)) = 0;
    *status = f ? pclose(f) : -1;
    return text;
}

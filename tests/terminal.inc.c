/* The program on a terminal, and what stands on its screen: a part of tests/test.c. */
static int terminal_columns; /* of the next terminal; 0: not known */

/* Run the program with a terminal for standard output and error; what arrived there. */
static int run_on_terminal(const char *arguments, const char *input, char *text, size_t cap) {
    char command[1024];
    int screen = posix_openpt(O_RDWR | O_NOCTTY), status = 0;
    size_t n = 0;
    *text = 0;
    if (screen < 0 || grantpt(screen) || unlockpt(screen))
        return -1;
    write_bytes(in_temporary("in"), input, strlen(input));
    snprintf(command, sizeof command, "exec %s %.900s <%s/in", PROGRAM, arguments, temporary);
    const char *name = ptsname(screen);
    int terminal = open(name, O_RDWR | O_NOCTTY);
    struct termios raw;
    if (terminal < 0 || tcgetattr(terminal, &raw))
        return -1;
    raw.c_oflag &= ~(tcflag_t)OPOST; /* newlines stay what they are */
    raw.c_lflag &= ~(tcflag_t)(ECHO | ICANON);
    tcsetattr(terminal, TCSANOW, &raw);
    struct winsize size = {.ws_col = (unsigned short)terminal_columns};
    ioctl(terminal, TIOCSWINSZ, &size);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        dup2(terminal, 1);
        dup2(terminal, 2);
        close(terminal);
        close(screen);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(terminal);
    for (ssize_t got; n < cap - 1 && (got = read(screen, text + n, cap - 1 - n)) > 0;)
        n += (size_t)got; /* until the terminal's last user is gone */
    waitpid(child, &status, 0);
    close(screen);
    text[n] = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/* Lines of a text, or -1 where one has more than 80 characters. */
static int lines_of_screen(const char *text) {
    int n = 0, at = 0, most = 0, length;
    for (const char *end = text + strlen(text); text < end; text += length) {
        long c = code_point(text, end, &length);
        n += c == '\n';
        at = c == '\n' || c == '\r' ? 0 : at + 1;
        most = max_int(most, at);
    }
    return most <= SCREEN ? n : -1;
}

static void make_vector_file(const char *name) {
    char arguments[256];
    snprintf(arguments, sizeof arguments,
             "vector weights/tiny-llama.bin --train 8 --site 3,-1 --coeff 2 --out %s/%s", temporary,
             name);
    CHECK_THAT(!run_program(PROGRAM, arguments, ""), "%s", complained);
}

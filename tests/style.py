"""How steer.c reads, counted.

    python3 tests/style.py [--places] FILE.c...

prints for each file: tokens in all, tokens a line that holds code, blank lines, statements joined
by commas, conditionals inside conditionals (in rows of a table they may stand, up to five), counters
that are divided (`i / n` and `i % n` in one function), lines of more than 100 columns (clang-format
lets comments be longer), and the share of declared names of one or two letters. With --places it lists
where each of these is, as FILE:LINE: WHAT. Ends with status 1 where steer.c has more than 12.5 tokens
a code line, or a file a statement joined by a comma or a line that is too long. Needs tree-sitter and
tree-sitter-c from PyPI.
"""
import re
import sys

import tree_sitter
import tree_sitter_c

MOST_TOKENS_A_LINE = 12.5
COLUMNS = 100
WHOLE = ("string_literal", "char_literal", "system_lib_string")  # one token each
PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_c.language()))


def nodes(node):
    yield node
    for child in node.children:
        yield from nodes(child)


def tokens(node):
    """The tokens below a node, comments left out; the body of a macro is cut by a rule."""
    if node.type == "comment":
        return
    if node.type == "preproc_arg":
        for part in re.findall(rb'"(?:\\.|[^"\\])*"|\w+|[^\s\w\\]', node.text):
            yield node.start_point[0], part
    elif node.type in WHOLE or not node.children:
        if node.text.strip():
            yield node.start_point[0], node.text
    else:
        for child in node.children:
            yield from tokens(child)


def depth_of_conditionals(node):
    """How many conditional operators lie inside one another, this one the outermost."""
    below = [depth_of_conditionals(c) for c in node.children] or [0]
    return max(below) + (node.type == "conditional_expression")


def nested_conditionals(root):
    """[(line, depth)] of the outermost conditionals that hold others."""
    found = []

    def walk(node):
        if node.type == "conditional_expression":
            depth = depth_of_conditionals(node)
            if depth > 1:
                found.append((node.start_point[0] + 1, depth))
            return
        for child in node.children:
            walk(child)

    walk(root)
    return found


def comma_statements(root):
    kinds = ("expression_statement", "return_statement")
    return [n.start_point[0] + 1 for n in nodes(root)
            if n.type in kinds and any(c.type == "comma_expression" for c in n.children)]


def divided_counters(root):
    """[(line, variable)] that a function both divides and takes the rest of, by the same number."""
    found = []
    for function in nodes(root):
        if function.type != "function_definition":
            continue
        seen = {"/": {}, "%": {}}
        for n in nodes(function):
            if n.type != "binary_expression" or n.children[1].text.decode() not in seen:
                continue
            left, operator, right = (c.text.decode() for c in n.children[:3])
            if re.fullmatch(r"\w+", left):
                seen[operator].setdefault((left, right), n.start_point[0] + 1)
        found += [(seen["/"][pair], " / % ".join(pair)) for pair in seen["/"] if pair in seen["%"]]
    return found


def declared_names(root):
    for n in nodes(root):
        if n.type in ("init_declarator", "parameter_declaration", "declaration",
                      "field_declaration", "pointer_declarator", "array_declarator"):
            for child in n.children_by_field_name("declarator"):
                if child.type in ("identifier", "field_identifier"):
                    yield child.start_point[0] + 1, child.text.decode()


def main():
    bad, places = False, "--places" in sys.argv
    paths = [a for a in sys.argv[1:] if a != "--places"]
    for path in paths:
        source = open(path, "rb").read()
        root = PARSER.parse(source).root_node
        found = list(tokens(root))
        lines = {line for line, _ in found}
        names = list(declared_names(root))
        nested = nested_conditionals(root)
        commas, divided = comma_statements(root), divided_counters(root)
        text = source.decode().split("\n")
        wide = [i for i, line in enumerate(text, 1) if len(line) > COLUMNS]
        short = [(line, name) for line, name in names if len(name) < 3]
        listed = [(line, f"conditionals {depth} deep") for line, depth in nested]
        listed += [(line, "statements joined by commas") for line in commas]
        listed += [(line, f"a counter divided: {what}") for line, what in divided]
        listed += [(line, f"more than {COLUMNS} columns") for line in wide]
        listed += [(line, f"a short name: {name}") for line, name in short]
        for line, what in sorted(listed) if places else ():
            print(f"{path}:{line}: {what}")
        blank = sum(not line.strip() for line in source.split(b"\n")[:-1])
        total = source.count(b"\n")
        deepest = max((depth for _, depth in nested), default=1)
        share = 100 * len(short) / max(1, len(names))
        print(f"{path}: {len(found)} tokens, {len(found) / len(lines):.1f} a code line; "
              f"{total} lines, {100 * blank / total:.1f} % blank; "
              f"{len(commas)} statements joined by commas; "
              f"{len(nested)} conditionals that hold others, the deepest {deepest}; "
              f"{len(divided)} counters divided; {len(wide)} lines over {COLUMNS} columns; "
              f"{share:.0f} % of {len(names)} names of one or two letters")
        if path.endswith("steer.c"):
            bad |= len(found) / len(lines) > MOST_TOKENS_A_LINE
        bad |= len(commas) + len(wide) > 0
    sys.exit(bad)


if __name__ == "__main__":
    main()

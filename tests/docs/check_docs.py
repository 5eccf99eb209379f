#!/usr/bin/env python3
"""Checks the documents against the files that they speak of: `check_docs.py ROOT [--fix]`.

Relative links of every Markdown file lead to files that exist, and each block that follows a line
`<!-- quote: PATH [NAME] -->` equals the lines between `// [NAME]` and `// [end]` of PATH; --fix puts
them in. docs/architecture.md draws the table by which check_tidy.py judges includes. Exit status 0 =
fine, 1 = findings, printed one per line as path:line: message.
"""
import ast
import pathlib
import re
import subprocess
import sys

LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
QUOTE = re.compile(r"^<!-- quote: (\S+) \[([^\]]+)\] -->$")


def quoted(root, path, name):
    """Lines between the markers, or None."""
    lines = (root / path).read_text(encoding="utf-8").splitlines() if (root / path).is_file() else []
    begin = f"// [{name}]"
    if begin not in lines or "// [end]" not in lines:
        return None
    return lines[lines.index(begin) + 1 : lines.index("// [end]")]


def check_links(root, rel, lines):
    fenced = False
    for number, line in enumerate(lines, 1):
        fenced ^= line.startswith("```")
        for target in [] if fenced else LINK.findall(line):
            if "://" not in target and not (root / rel).parent.joinpath(target).exists():
                yield number, f"link leads nowhere: {target}"


def check_quotes(root, lines):
    """Messages, and the lines as they should be."""
    messages, out, at = [], [], 0
    while at < len(lines):
        out.append(lines[at])
        match = QUOTE.match(lines[at])
        at += 1
        if not match:
            continue
        wanted = quoted(root, *match.groups())
        end = next((i for i in range(at + 1, len(lines)) if lines[i] == "```"), None)
        if wanted is None or end is None or not lines[at].startswith("```"):
            messages.append((at, f"nothing to quote or no block: {match.group(1)}"))
            continue
        if lines[at + 1 : end] != wanted:
            messages.append((at, f"differs from {match.group(1)} [{match.group(2)}]"))
        out += [lines[at], *wanted, "```"]
        at = end + 1
    return messages, out


def allowed_includes(root):
    """ALLOWED of check_tidy.py, which is not run for it; {} where there is none."""
    path = root / "tests/tidy/check_tidy.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ALLOWED":
            return ast.literal_eval(node.value)
    return {}


def check_folders(root):
    """Rows `| `folder` | other, folders; remark |` against ALLOWED; each may include itself."""
    page = "docs/architecture.md"
    lines = (root / page).read_text(encoding="utf-8").splitlines() if (root / page).is_file() else []
    rows = {}
    for number, line in enumerate(lines, 1):
        match = re.match(r"\| `([a-z_/]+)` \| ([^|;]*)[^|]*\|$", line)
        if match:
            rows[match.group(1)] = (number, match.group(2))
    for folder, allowed in allowed_includes(root).items():
        number, text = rows.get(folder, (1, ""))
        names = re.sub(r" \([^)]*\)", "", text).replace("generated gRPC code", "kvasir").strip()
        drawn = set() if names in ("", "nothing of ours") else set(names.split(", "))
        if folder not in rows or drawn != allowed - {folder}:
            wanted = ", ".join(sorted(allowed - {folder})) or "nothing of ours"
            yield f"{page}:{number}: {folder} may include {wanted}"


def markdown_files(root):
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode != 0:
        return sorted(p.relative_to(root).as_posix() for p in root.rglob("*.md"))
    return sorted({n for n in result.stdout.decode().split("\0") if n and (root / n).is_file()})


def check(root, fix=False):
    found = []
    for rel in markdown_files(root):
        lines = (root / rel).read_text(encoding="utf-8").splitlines()
        quotes, wanted = check_quotes(root, lines)
        if fix and wanted != lines:
            (root / rel).write_text("\n".join(wanted) + "\n", encoding="utf-8")
            lines, quotes = wanted, []
        for number, message in [*check_links(root, rel, lines), *quotes]:
            found.append(f"{rel}:{number}: {message}")
    return found + list(check_folders(root))


if __name__ == "__main__":
    findings = check(pathlib.Path(sys.argv[1]), "--fix" in sys.argv[2:])
    print("\n".join(findings), end="\n" if findings else "")
    sys.exit(1 if findings else 0)

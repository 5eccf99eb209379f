// Text from engines and daemons, made safe to print on a terminal.
#ifndef KVASIR_CLIENT_CTL_TERMINAL_TEXT_H_
#define KVASIR_CLIENT_CTL_TERMINAL_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace kvasir::ctl {

// Printable UTF-8 stays. Control bytes (\n, \t, \x1b), bytes that are not UTF-8, C1 controls, marks
// that change the direction of text, line separators and backslashes become escapes, so that no
// text can move the cursor, reorder what stands beside it or pass for another. Every byte in `also`
// (ASCII) gets a backslash. ENSURES: the result is valid UTF-8 without control characters.
std::string EscapeForTerminal(std::string_view bytes, std::string_view also = {});

// Code points of valid UTF-8: what a table counts as columns. Wide characters count as one.
size_t CountColumns(std::string_view text);

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_TERMINAL_TEXT_H_

#include "client/ctl/terminal_text.h"

#include <algorithm>
#include <cstdint>

#include <fmt/format.h>

namespace kvasir::ctl {
namespace {

struct CodePoint {
  uint32_t value = 0;
  size_t bytes = 0;  // 0: not UTF-8
};

// Strict: no overlong forms, no surrogates, nothing above U+10FFFF (RFC 3629).
CodePoint DecodeFirst(std::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {first, 1};
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return {};
  uint32_t value = first & (0xFFu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    value = value << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kSmallest[length] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
    return {};
  return {value, length};
}

bool IsHarmful(uint32_t c) {
  struct Range {
    uint32_t first, last;
  };
  constexpr Range kHarmful[] = {
      {0x00, 0x1F},     {0x7F, 0x9F},         // C0, DEL, C1
      {0xAD, 0xAD},     {0x61C, 0x61C},       // soft hyphen, Arabic letter mark
      {0x200B, 0x200F}, {0x2028, 0x202E},     // zero width, direction, line separators
      {0x2060, 0x206F}, {0xFEFF, 0xFEFF},     // invisible operators, isolates, byte order mark
      {0xFFF9, 0xFFFB}, {0xE0000, 0xE007F}};  // annotations, tags
  return std::any_of(std::begin(kHarmful), std::end(kHarmful),
                     [c](Range range) { return c >= range.first && c <= range.last; });
}

std::string Escape(uint32_t c) {
  switch (c) {
    case '\n':
      return "\\n";
    case '\t':
      return "\\t";
    case '\r':
      return "\\r";
    default:
      return c < 0x80 ? fmt::format("\\x{:02x}", c) : fmt::format("\\u{{{:x}}}", c);
  }
}

}  // namespace

std::string EscapeForTerminal(std::string_view bytes, std::string_view also) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const CodePoint c = DecodeFirst(bytes);
    if (c.bytes == 0) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(bytes[0]));
      bytes.remove_prefix(1);
      continue;
    }
    const std::string_view whole = bytes.substr(0, c.bytes);
    if (IsHarmful(c.value)) {
      out += Escape(c.value);
    } else {
      if (whole == "\\" || also.find(whole) != std::string_view::npos) out += '\\';
      out += whole;
    }
    bytes.remove_prefix(c.bytes);
  }
  return out;
}

size_t CountColumns(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

}  // namespace kvasir::ctl

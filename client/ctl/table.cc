#include "client/ctl/table.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "client/ctl/terminal_text.h"

namespace kvasir::ctl {

void Table::AddRow(std::vector<std::string> cells) {
  KVASIR_CHECK(cells.size() == columns_.size(), "cells={} columns={}", cells.size(),
               columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::Render() const {
  std::vector<std::vector<std::string>> lines;
  for (const Column& column : columns_) {
    if (lines.empty()) lines.emplace_back();
    lines.front().push_back(column.title);
  }
  lines.insert(lines.end(), rows_.begin(), rows_.end());
  std::vector<size_t> widths(columns_.size(), 0);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      widths[i] = std::max(widths[i], CountColumns(line[i]));
    }
  }
  std::string out;
  for (const auto& line : lines) {
    std::string text;
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - CountColumns(line[i]), ' ');
      if (i > 0) text += "  ";
      text += columns_[i].align == Align::kRight ? padding + line[i] : line[i] + padding;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  }
  return out;
}

}  // namespace kvasir::ctl

// Table: aligned columns for people, two spaces apart, no lines; numbers to the right.
//
// Not thread-safe. Cells must be safe to print (terminal_text.h). No Debian package fits: libfort
// and tabulate are not in Debian 12.
#ifndef KVASIR_CLIENT_CTL_TABLE_H_
#define KVASIR_CLIENT_CTL_TABLE_H_

#include <string>
#include <vector>

namespace kvasir::ctl {

class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // REQUIRES: one cell for each column.
  void AddRow(std::vector<std::string> cells);

  bool empty() const { return rows_.empty(); }

  // The title line and a line for each row, without spaces at the ends of lines.
  std::string Render() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_TABLE_H_

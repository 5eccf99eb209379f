// What a bench found: rows that are printed as a table and written as JSON.
//
// File: {"schema": 1, "rows": [{"name", "value", "unit", "reference", "ratio", "better", "goal",
// ...}]} with ratio = value / reference. Where several things are references, `reference` is the
// name of one and `reference_value` its number. Thread-compatible.
#ifndef KVASIR_BENCH_REPORT_H_
#define KVASIR_BENCH_REPORT_H_

#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include <nlohmann/json.hpp>

namespace kvasir::bench {

enum class Better { kLower, kHigher };

struct Row {
  std::string name;
  double value = 0;
  std::string unit;
  std::optional<double> reference;  // what the value is compared with; none: no ratio either
  Better better = Better::kLower;
  std::string goal;                 // in words, e.g. "ratio <= 1.03"; empty: none
  nlohmann::ordered_json extra;     // further fields, an object; it cannot replace the ones above
  std::string reference_name = {};  // what the reference is of; empty: the row's name says it
};

class Report {
 public:
  void Add(Row row) { rows_.push_back(std::move(row)); }
  const std::vector<Row>& rows() const { return rows_; }

  // The whole file. Values that are no finite numbers become null.
  nlohmann::ordered_json ToJson() const;

  // Aligned columns, extra fields last; ends in a newline.
  std::string ToTable() const;

  // Writes the JSON, making the folders of `path`; an older file is replaced as a whole.
  // Errors: kUnavailable naming the path.
  absl::Status Write(const std::string& path) const;

 private:
  std::vector<Row> rows_;
};

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_REPORT_H_

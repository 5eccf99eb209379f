#include "bench/report.h"

#include <system_error>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/error.h"

#include <fmt/format.h>

namespace kvasir::bench {
namespace {

using Json = nlohmann::ordered_json;

Json Number(std::optional<double> value) {
  return value && std::isfinite(*value) ? Json(*value) : Json(nullptr);
}

std::optional<double> RatioOf(const Row& row) {
  if (!row.reference || *row.reference == 0) return std::nullopt;
  return row.value / *row.reference;
}

std::string Cell(std::optional<double> value) {
  return value ? fmt::format("{:.6g}", *value) : "-";
}

std::string Cell(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return fmt::format("{:.6g}", value.get<double>());
  return value.dump();
}

std::string ReferenceCell(const Row& row) {
  const std::string value = Cell(row.reference);
  return row.reference_name.empty() ? value : row.reference_name + " " + value;
}

const char* NameOf(Better better) { return better == Better::kLower ? "lower" : "higher"; }

}  // namespace

Json Report::ToJson() const {
  Json rows = Json::array();
  for (const Row& row : rows_) {
    Json object = {{"name", row.name},
                   {"value", Number(row.value)},
                   {"unit", row.unit},
                   {"reference", Number(row.reference)},
                   {"ratio", Number(RatioOf(row))},
                   {"better", NameOf(row.better)},
                   {"goal", row.goal}};
    if (!row.reference_name.empty()) {
      object["reference"] = row.reference_name;
      object["reference_value"] = Number(row.reference);
    }
    for (const auto& [key, value] : row.extra.items()) {
      if (!object.contains(key)) object[key] = value;
    }
    rows.push_back(std::move(object));
  }
  return {{"schema", 1}, {"rows", std::move(rows)}};
}

std::string Report::ToTable() const {
  std::vector<std::string> head = {"name", "value", "unit", "reference", "ratio", "better", "goal"};
  const size_t fixed = head.size();
  for (const Row& row : rows_) {
    for (const auto& [key, value] : row.extra.items()) {
      if (std::find(head.begin(), head.end(), key) == head.end()) head.push_back(key);
    }
  }
  std::vector<std::vector<std::string>> lines = {head};
  for (const Row& row : rows_) {
    std::vector<std::string> line = {row.name,
                                     Cell(std::optional<double>(row.value)),
                                     row.unit,
                                     ReferenceCell(row),
                                     Cell(RatioOf(row)),
                                     NameOf(row.better),
                                     row.goal.empty() ? "-" : row.goal};
    for (size_t i = fixed; i < head.size(); ++i) {
      line.push_back(row.extra.contains(head[i]) ? Cell(row.extra.at(head[i])) : "-");
    }
    lines.push_back(std::move(line));
  }
  std::vector<size_t> width(head.size(), 0);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) width[i] = std::max(width[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    for (size_t i = 0; i + 1 < line.size(); ++i) {
      text += fmt::format("{:<{}}  ", line[i], width[i]);
    }
    text += line.back() + "\n";
  }
  return text;
}

absl::Status Report::Write(const std::string& path) const {
  const std::filesystem::path target(path);
  std::error_code error;
  if (target.has_parent_path()) std::filesystem::create_directories(target.parent_path(), error);
  const std::string partial = path + ".partial";
  {
    std::ofstream file(partial, std::ios::trunc);
    file << ToJson().dump(1) << "\n";
    file.close();
    if (!file) return Unavailable("cannot write the report: path={}", path);
  }
  std::filesystem::rename(partial, target, error);
  if (error) return Unavailable("cannot write the report: path={} error={}", path, error.message());
  return absl::OkStatus();
}

}  // namespace kvasir::bench

// The picture of a sequence: its text, with the kept tokens marked.
#include <string>

#include "base/bytes.h"
#include "client/ctl/render.h"
#include "client/ctl/terminal_text.h"

#include <fmt/format.h>

namespace kvasir::ctl {
namespace {

constexpr char kBold[] = "\x1b[1;32m";
constexpr char kDim[] = "\x1b[2m";
constexpr char kPlain[] = "\x1b[0m";
constexpr char kDot[] = "\u00b7";

enum class RowState { kKept, kDropped };

// Neighbouring tokens of one state: their bytes are joined before they are decoded, because a
// character may be spread over several tokens.
class Painter {
 public:
  explicit Painter(bool color) : color_(color) {}

  void Add(const v1::InspectedRow& row) {
    const RowState state = row.kept() ? RowState::kKept : RowState::kDropped;
    if (state != state_) Flush();
    state_ = state;
    if (!row.text().empty()) {
      bytes_ += row.text();
      return;
    }
    // No text: a mark instead, which must not be taken for text of the engine.
    FlushBytes();
    run_ += row.kept() && row.token_known() ? fmt::format("<{}>", row.token()) : kDot;
  }

  std::string Finish() {
    Flush();
    return std::move(out_);
  }

 private:
  void FlushBytes() {
    std::string_view rest = bytes_;
    while (!rest.empty()) {
      const size_t end = rest.find('\n');
      const bool breaks = end != std::string_view::npos;
      run_ += EscapeForTerminal(rest.substr(0, breaks ? end + 1 : end), color_ ? "<" : "<[]");
      if (breaks) run_ += "\n  ";
      rest.remove_prefix(breaks ? end + 1 : rest.size());
    }
    bytes_.clear();
  }

  void Flush() {
    FlushBytes();
    if (run_.empty()) return;
    const bool kept = state_ == RowState::kKept;
    if (color_) {
      out_ += fmt::format("{}{}{}", kept ? kBold : kDim, run_, kPlain);
    } else {
      out_ += kept ? fmt::format("[{}]", run_) : run_;
    }
    run_.clear();
  }

  const bool color_;
  RowState state_ = RowState::kDropped;
  std::string bytes_;  // of tokens that are not escaped yet
  std::string run_;    // of the current state, safe to print
  std::string out_;
};

using Rows = google::protobuf::RepeatedPtrField<v1::InspectedRow>;

std::string Paint(const Rows& rows, bool color) {
  Painter painter(color);
  for (const v1::InspectedRow& row : rows) painter.Add(row);
  return "\n  " + painter.Finish() + "\n";
}

uint64_t CountKept(const Rows& rows) {
  uint64_t kept = 0;
  for (const v1::InspectedRow& row : rows) kept += row.kept() ? 1 : 0;
  return kept;
}

// How the heads differ, where they do.
std::string HeadsLine(const v1::InspectSequenceResponse& inspection) {
  uint64_t all = 0, some = 0;
  for (const v1::InspectedRow& row : inspection.rows()) {
    if (row.kept_heads() >= inspection.kv_heads()) ++all;
    if (row.kept_heads() > 0 && row.kept_heads() < inspection.kv_heads()) ++some;
  }
  if (some == 0) return "";
  return fmt::format("of {} kv heads: {} tokens kept by all, {} by some\n", inspection.kv_heads(),
                     all, some);
}

std::string Legend(bool color) {
  return color ? "bold" : fmt::format("in [brackets], {} is a dropped token without text", kDot);
}

}  // namespace

std::string RenderInspection(const v1::InspectSequenceResponse& inspection, uint32_t layer,
                             bool color) {
  const v1::SequenceInfo& info = inspection.info();
  std::string out = fmt::format("sequence {} of {}: model {}, retention {}\n", info.sequence_id(),
                                EscapeForTerminal(info.tenant()), EscapeForTerminal(info.model()),
                                EscapeForTerminal(info.retention()));
  out += fmt::format("{} tokens seen, at most {} kept in a layer, {} held in {} layers\n",
                     info.rows_seen(), info.rows_kept(), HumanBytes(info.held_bytes()),
                     inspection.layers());
  if (!inspection.prompt().empty()) {
    const auto& prompt = inspection.prompt();
    out += fmt::format("prompt of {} tokens, {} to {}: {} of {} selected ({})\n",
                       inspection.prompt_rows(), prompt.begin()->row(), prompt.rbegin()->row(),
                       CountKept(prompt), prompt.size(), Legend(color));
    out += Paint(prompt, color) + "\n";
  }
  if (inspection.rows().empty()) {
    out += inspection.prompt().empty() ? "no rows in this range\n" : "";
  } else {
    const auto& rows = inspection.rows();
    out += fmt::format("layer {}, rows {} to {}: {} of {} kept ({})\n", layer, rows.begin()->row(),
                       rows.rbegin()->row(), CountKept(rows), rows.size(), Legend(color));
    out += HeadsLine(inspection);
    out += Paint(rows, color);
  }
  if (inspection.next_row() != 0) {
    out += fmt::format("\nmore follows: --from={}\n", inspection.next_row());
  }
  return out;
}

}  // namespace kvasir::ctl

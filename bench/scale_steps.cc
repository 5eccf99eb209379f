#include "bench/scale_steps.h"

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status_macros.h"
#include "bench/statistics.h"

#include <fmt/format.h>

namespace kvasir::bench {
namespace {

constexpr int kStepRows = 2000;

double Nanoseconds(Instant start) {
  return std::chrono::duration<double, std::nano>(SystemClock().Now() - start).count();
}

// One row of each sequence of a batch.
absl::Status Step(std::span<Sequence* const> batch, std::span<const uint32_t> tokens) {
  absl::Status failed;
  Sequence::BeginMany(batch, 1, [&failed](size_t, const absl::StatusOr<StepView>& view) {
    if (!view.ok()) failed = view.status();
  });
  Sequence::CommitMany(batch, tokens, [&failed](size_t, const absl::Status& status) {
    if (!status.ok()) failed = status;
  });
  return failed;
}

// What two reads of the clock take of what is between them: of few steps of one sequence a tenth.
double ClockNanoseconds() {
  std::vector<double> nanoseconds;
  for (int i = 0; i < 1000; ++i) nanoseconds.push_back(Nanoseconds(SystemClock().Now()));
  return MedianOf(nanoseconds).median;
}

uint64_t CallsOf(const Session& session) {
  const Session::CallCounts calls = session.calls();
  return calls.ring + calls.grpc;
}

}  // namespace

absl::Status AddSteps(Engine& engine, Report* report) {
  const auto add = [report](std::string name, double value, std::string unit) {
    Row row;
    row.name = std::move(name);
    row.value = value;
    row.unit = std::move(unit);
    report->Add(std::move(row));
  };
  const double clock = ClockNanoseconds();
  add("scale/clock", clock, "ns, not in the steps");
  constexpr uint64_t kTimed = kScaleSlots - 4;  // a border's neighbours have new tables to load
  for (const size_t batch : {1U, 32U, 1024U}) {
    while (engine.sequences.size() < batch) {
      KVASIR_ASSIGN_OR_RETURN(Sequence sequence, Open(engine));
      engine.sequences.push_back(std::move(sequence));
    }
    std::vector<Sequence*> all;
    for (Sequence& sequence : engine.sequences) all.push_back(&sequence);
    const std::vector<uint32_t> tokens(batch, 7);
    std::vector<double> nanoseconds, of_borders;  // a step and sequence
    uint64_t between = 0, at_border = 0, borders = 0;
    for (int row = 0; row < kStepRows; row += kScaleSlots, ++borders) {
      const uint64_t before = CallsOf(*engine.session);
      const Instant border = SystemClock().Now();
      KVASIR_RETURN_IF_ERROR(Step(all, tokens));
      of_borders.push_back(Nanoseconds(border) / static_cast<double>(batch));
      const uint64_t behind = CallsOf(*engine.session);
      for (int i = 0; i < 2; ++i) KVASIR_RETURN_IF_ERROR(Step(all, tokens));
      const Instant start = SystemClock().Now();
      for (uint64_t i = 0; i < kTimed; ++i) KVASIR_RETURN_IF_ERROR(Step(all, tokens));
      nanoseconds.push_back((Nanoseconds(start) - clock) / static_cast<double>(batch * kTimed));
      const uint64_t ahead = CallsOf(*engine.session);
      KVASIR_RETURN_IF_ERROR(Step(all, tokens));
      between += ahead - behind;
      at_border += behind - before + CallsOf(*engine.session) - ahead;
    }
    const MedianInterval value = MedianOf(nanoseconds);
    Row row;
    row.name = fmt::format("scale/step/{} sequences", batch);
    row.value = value.median;
    row.unit = "ns a sequence";
    row.goal = "value <= 20";
    row.extra = {{"low", value.low}, {"high", value.high}, {"samples", nanoseconds.size()}};
    report->Add(std::move(row));
    add(fmt::format("scale/step_behind_a_border/{} sequences", batch), MedianOf(of_borders).median,
        "ns a sequence");
    add(fmt::format("scale/calls_between_borders/{} sequences", batch),
        static_cast<double>(between), "calls");
    add(fmt::format("scale/calls_at_a_border/{} sequences", batch),
        static_cast<double>(at_border) / static_cast<double>(borders), "calls of the batch");
    for (Sequence& sequence : engine.sequences) KVASIR_RETURN_IF_ERROR(sequence.Truncate(0));
  }
  engine.sequences.clear();
  return absl::OkStatus();
}

}  // namespace kvasir::bench

#include "bench/scale_steps.h"

#include <atomic>
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

// Of an engine that commits ahead of it: through with a step when the next one is begun.
struct Stream {
  device::DeviceWord word{0};
  uint64_t steps = 0;
};

// One row of each sequence of a batch; `stream` is null where rows are there at the commit.
absl::Status Step(std::span<Sequence* const> batch, std::span<const uint32_t> tokens,
                  Stream* stream) {
  absl::Status failed;
  const auto committed = [&failed](size_t, const absl::Status& status) {
    if (!status.ok()) failed = status;
  };
  if (stream != nullptr) stream->word.store(stream->steps, std::memory_order_release);
  Sequence::BeginMany(batch, 1, [&failed](size_t, const absl::StatusOr<StepView>& view) {
    if (!view.ok()) failed = view.status();
  });
  if (stream == nullptr) {
    Sequence::CommitMany(batch, tokens, committed);
  } else {
    Sequence::CommitManyAsync(batch, tokens, {&stream->word, ++stream->steps}, committed);
  }
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

absl::Status MeasureSteps(Engine& engine, Stream& ahead_of, Report* report) {
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
    for (Stream* const stream : {static_cast<Stream*>(nullptr), &ahead_of}) {
      std::vector<double> nanoseconds, of_borders;  // a step and sequence
      uint64_t between = 0, at_border = 0, borders = 0;
      for (int row = 0; row < kStepRows; row += kScaleSlots, ++borders) {
        const uint64_t before = CallsOf(*engine.session);
        const Instant border = SystemClock().Now();
        KVASIR_RETURN_IF_ERROR(Step(all, tokens, stream));
        of_borders.push_back(Nanoseconds(border) / static_cast<double>(batch));
        const uint64_t behind = CallsOf(*engine.session);
        for (int i = 0; i < 2; ++i) KVASIR_RETURN_IF_ERROR(Step(all, tokens, stream));
        const Instant start = SystemClock().Now();
        for (uint64_t i = 0; i < kTimed; ++i) KVASIR_RETURN_IF_ERROR(Step(all, tokens, stream));
        nanoseconds.push_back((Nanoseconds(start) - clock) / static_cast<double>(batch * kTimed));
        const uint64_t ahead = CallsOf(*engine.session);
        KVASIR_RETURN_IF_ERROR(Step(all, tokens, stream));
        between += ahead - behind;
        at_border += behind - before + CallsOf(*engine.session) - ahead;
      }
      const std::string of =
          fmt::format("{}/{} sequences", stream == nullptr ? "" : "_async", batch);
      const MedianInterval value = MedianOf(nanoseconds);
      Row row;
      row.name = "scale/step" + of;
      row.value = value.median;
      row.unit = "ns a sequence";
      if (stream == nullptr) row.goal = "value <= 20";
      row.extra = {{"low", value.low}, {"high", value.high}, {"samples", nanoseconds.size()}};
      report->Add(std::move(row));
      add("scale/step_behind_a_border" + of, MedianOf(of_borders).median, "ns a sequence");
      add("scale/calls_between_borders" + of, static_cast<double>(between), "calls");
      add("scale/calls_at_a_border" + of,
          static_cast<double>(at_border) / static_cast<double>(borders), "calls of the batch");
      ahead_of.word.store(ahead_of.steps, std::memory_order_release);
      for (Sequence& sequence : engine.sequences) KVASIR_RETURN_IF_ERROR(sequence.Truncate(0));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status AddSteps(Engine& engine, Report* report) {
  Stream stream;  // until no sequence waits for it
  absl::Status measured = MeasureSteps(engine, stream, report);
  stream.word.store(stream.steps, std::memory_order_release);
  engine.sequences.clear();
  return measured;
}

}  // namespace kvasir::bench

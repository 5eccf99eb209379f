// A core whose tenant "a" has a ladder, and what tests of it do: prefixes that are made smaller,
// and the same rows as an engine brings them into that form.
#ifndef KVASIR_TESTS_CORE_DEGRADE_FIXTURE_H_
#define KVASIR_TESTS_CORE_DEGRADE_FIXTURE_H_

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {

// Tokens of which one in forty is a separator.
inline std::vector<uint32_t> Text(uint64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> tokens(count);
  for (uint32_t& token : tokens) token = random() % 40 == 0 ? 1 : 3 + random() % 8;
  return tokens;
}

// A percent of 2 MiB is 20.5 KiB: of the small model, two groups and a half.
inline constexpr uint64_t kDegradeLimit = 2 * kMiB;

class DegradeCoreTest : public PrefixCoreTest {
 protected:
  void Configure(CoreConfig& config) override {
    config.tenants[0].degrade = ladder_;
    config.write_down_high_percent = high_percent_;
    config.write_down_low_percent = high_percent_ - 1;
    config.eviction = eviction_;
  }

  // Cached rows above so many percent of the limit are made smaller.
  void StartWith(std::vector<std::string> ladder, uint32_t high_percent,
                 uint64_t limit_bytes = kDegradeLimit) {
    ladder_ = std::move(ladder);
    high_percent_ = high_percent;
    core_.reset();
    engines_.clear();
    Start(limit_bytes);
  }

  absl::StatusOr<FakeEngine::Stream> AttachAtLeast(FakeEngine& engine, uint32_t model,
                                                   const std::vector<uint32_t>& tokens,
                                                   std::optional<QualityClass> least,
                                                   const std::string& retention = "full") {
    OpenRequest request;
    request.model_id = model;
    request.retention = retention;
    request.least_quality = least;
    absl::StatusOr<FakeEngine::Stream> stream = engine.Attach(request, "", {tokens, {}, 0});
    if (stream.ok()) RunJobs();
    return stream;
  }

  uint64_t RowsAtLeast(FakeEngine& engine, uint32_t model, const std::vector<uint32_t>& tokens,
                       std::optional<QualityClass> least, const std::string& retention = "full") {
    absl::StatusOr<FakeEngine::Stream> stream =
        AttachAtLeast(engine, model, tokens, least, retention);
    EXPECT_TRUE(stream.ok()) << MessageOf(stream.status());
    if (!stream.ok()) return 0;
    Close(engine, *stream);
    return stream->rows;
  }

  // "FORM rows" of each prefix of the tenant, the oldest first.
  std::vector<std::string> Forms(const std::string& tenant = "a") {
    std::vector<std::string> forms;
    for (const PrefixReport& report : core_->PrefixReports()) {
      if (report.tenant != tenant) continue;
      const auto name = [](const std::string& form) { return form.substr(0, form.find(':')); };
      forms.push_back(FormName(name(report.retention), name(report.condensed_from)) + " " +
                      std::to_string(report.rows));
    }
    return forms;
  }

  uint64_t HeldOf(const std::string& tenant) {
    for (const TenantReport& report : core_->TenantReports()) {
      if (report.name == tenant) return report.held_bytes;
    }
    return 0;
  }
  TenantCounters Counters(size_t tenant = 0) { return core_->TenantReports()[tenant].counters; }

  std::vector<std::string> ladder_;
  uint32_t high_percent_ = 80;
  std::string eviction_ = "lru";
};

}  // namespace kvasir::core::testing

#endif  // KVASIR_TESTS_CORE_DEGRADE_FIXTURE_H_

// Engines that look up, write and publish prompts on a core of the tests.
#ifndef KVASIR_TESTS_CORE_PREFIX_FIXTURE_H_
#define KVASIR_TESTS_CORE_PREFIX_FIXTURE_H_

#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/snapshot_fixture.h"

namespace kvasir::core::testing {

class PrefixCoreTest : public SnapshotCoreTest {
 protected:
  static std::vector<uint32_t> Tokens(uint64_t count, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<uint32_t> tokens(count);
    for (uint32_t& token : tokens) token = random() % 8;
    return tokens;
  }

  FakeEngine& ConnectOwn(uint32_t uid, uint32_t* model,
                         const ModelDescription& description = RotatedModel()) {
    FakeEngine& engine = Connect(uid, model, description);
    engine.rows_by_prefix = true;
    return engine;
  }

  absl::StatusOr<FakeEngine::Stream> Attach(FakeEngine& engine, uint32_t model,
                                            const std::string& retention,
                                            const std::vector<uint32_t>& tokens,
                                            std::vector<TokenExtra> extras = {},
                                            const std::string& salt = "") {
    OpenRequest request;
    request.model_id = model;
    request.retention = retention;
    absl::StatusOr<FakeEngine::Stream> stream =
        engine.Attach(request, salt, {tokens, std::move(extras), 0});
    if (stream.ok()) RunJobs();
    return stream;
  }

  // The rows of `tokens` that the stream does not have yet.
  void WriteTokens(FakeEngine& engine, FakeEngine::Stream& stream,
                   const std::vector<uint32_t>& tokens) {
    while (stream.rows < tokens.size() && !HasFatalFailure()) {
      Step(engine, stream, tokens[stream.rows]);
    }
  }

  absl::Status Publish(FakeEngine& engine, const FakeEngine::Stream& stream) {
    engine.WriteDesk(stream);
    bool asked = false;
    for (int attempt = 0; attempt < 4; ++attempt) {
      const SaveAnswer answer = engine.Publish(stream, &asked);
      if (!answer.status.ok()) return answer.status;
      if (answer.ready) return absl::OkStatus();
      RunJobs();
    }
    return Internal("publishing does not come to its end");
  }

  void Close(FakeEngine& engine, const FakeEngine::Stream& stream) {
    EXPECT_TRUE(*core_->CloseSequence(engine.session(), stream.slot, stream.uid));
  }

  // Opens, writes, publishes and closes.
  void Store(FakeEngine& engine, uint32_t model, const std::string& retention,
             const std::vector<uint32_t>& tokens, std::vector<TokenExtra> extras = {},
             const std::string& salt = "") {
    absl::StatusOr<FakeEngine::Stream> stream =
        Attach(engine, model, retention, tokens, std::move(extras), salt);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    WriteTokens(engine, *stream, tokens);
    const absl::Status published = Publish(engine, *stream);
    ASSERT_TRUE(published.ok()) << MessageOf(published);
    Close(engine, *stream);
  }

  uint64_t RowsAttached(FakeEngine& engine, uint32_t model, const std::string& retention,
                        const std::vector<uint32_t>& tokens, std::vector<TokenExtra> extras = {},
                        const std::string& salt = "") {
    absl::StatusOr<FakeEngine::Stream> stream =
        Attach(engine, model, retention, tokens, std::move(extras), salt);
    EXPECT_TRUE(stream.ok()) << MessageOf(stream.status());
    if (!stream.ok()) return 0;
    Close(engine, *stream);
    return stream->rows;
  }
};

}  // namespace kvasir::core::testing

#endif  // KVASIR_TESTS_CORE_PREFIX_FIXTURE_H_

// Every field of every call out of bounds, and clients that break the rules: the right code, a
// message that names field and bound, and no byte lost.
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

class BadInputTest : public DaemonFixture {
 protected:
  RawEngine MakeEngine(uint32_t layers = 1) {
    return RawEngine(folder_.path() + "/control.sock", folder_.path() + "/data.sock", layers);
  }

  static void ExpectError(const grpc::Status& status, StatusCode code,
                          const std::vector<std::string>& texts) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    for (const std::string& text : texts) EXPECT_THAT(status.error_message(), HasSubstr(text));
  }

  template <typename Request, typename Response>
  static void ExpectCall(RawEngine& engine,
                         grpc::Status (v1::KvCache::Stub::*method)(grpc::ClientContext*,
                                                                   const Request&, Response*),
                         const Request& request, StatusCode code,
                         const std::vector<std::string>& texts) {
    Response response;
    ExpectError(engine.calls().Call(method, request, &response), code, texts);
  }
};

TEST_F(BadInputTest, ModelSpecs) {
  RawEngine engine = MakeEngine();
  struct Case {
    std::string name;
    std::function<void(v1::ModelSpec&)> spoil;
    std::vector<std::string> texts;
  };
  const std::vector<Case> cases = {
      {"no dtype", [](auto& s) { s.clear_dtype(); }, {"dtype", "F16, BF16, F32, F8_E4M3"}},
      {"unknown dtype",
       [](auto& s) { s.set_dtype(static_cast<v1::DataType>(99)); },
       {"dtype", "99"}},
      {"no layers", [](auto& s) { s.clear_layers(); }, {"layers count", "min=1", "max=1024"}},
      {"many layers",
       [](auto& s) {
         for (int i = 0; i < 1024; ++i) *s.add_layers() = s.layers(0);
       },
       {"layers count", "value=1025", "max=1024"}},
      {"no heads",
       [](auto& s) { s.mutable_layers(0)->set_kv_heads(0); },
       {"layers[0].kv_heads", "value=0", "min=1", "max=4096"}},
      {"many heads",
       [](auto& s) { s.mutable_layers(0)->set_kv_heads(4097); },
       {"layers[0].kv_heads", "value=4097", "max=4096"}},
      {"no K",
       [](auto& s) { s.mutable_layers(0)->set_k_head_dim(0); },
       {"layers[0].k_head_dim", "value=0", "min=1"}},
      {"wide K",
       [](auto& s) { s.mutable_layers(0)->set_k_head_dim(65537); },
       {"layers[0].k_head_dim", "value=65537", "max=65536"}},
      {"wide V",
       [](auto& s) { s.mutable_layers(0)->set_v_head_dim(65537); },
       {"layers[0].v_head_dim", "value=65537", "max=65536"}},
      {"K row too long",
       [](auto& s) {
         s.mutable_layers(0)->set_kv_heads(4096);
         s.mutable_layers(0)->set_k_head_dim(65536);
       },
       {"layers[0].K row bytes", "max=1048576"}},
      {"V row too long",
       [](auto& s) {
         s.mutable_layers(0)->set_kv_heads(4096);
         s.mutable_layers(0)->set_v_head_dim(65536);
       },
       {"layers[0].V row bytes", "max=1048576"}},
      {"token too large",
       [](auto& s) {
         s.mutable_layers(0)->set_kv_heads(512);
         s.mutable_layers(0)->set_k_head_dim(1024);
         s.mutable_layers(0)->set_v_head_dim(1024);
         for (int i = 0; i < 63; ++i) *s.add_layers() = s.layers(0);
       },
       {"bytes of one token over all layers", "max=67108864"}},
      {"window without rows",
       [](auto& s) { s.mutable_layers(0)->set_attention(v1::ATTENTION_KIND_SLIDING_WINDOW); },
       {"layers[0].sliding_window", "min=1"}},
      {"unknown attention",
       [](auto& s) { s.mutable_layers(0)->set_attention(static_cast<v1::AttentionKind>(7)); },
       {"layers[0].attention", "value=7"}},
      {"unknown pairing",
       [](auto& s) { s.mutable_rope()->set_pairing(static_cast<v1::RopeSpec::Pairing>(9)); },
       {"rope.pairing", "value=9"}},
      {"theta", [](auto& s) { s.mutable_rope()->set_theta(0.5); }, {"rope.theta", "value=0.5"}},
      {"theta is no number",
       [](auto& s) { s.mutable_rope()->set_theta(std::numeric_limits<double>::quiet_NaN()); },
       {"rope.theta", "nan"}},
      {"no rotated dims",
       [](auto& s) { s.mutable_rope()->set_rotated_dims(0); },
       {"rope.rotated_dims", "value=0", "min=2", "max=16"}},
      {"odd rotated dims",
       [](auto& s) { s.mutable_rope()->set_rotated_dims(3); },
       {"rope.rotated_dims", "odd", "value=3"}},
      {"more rotated dims than a key has",
       [](auto& s) { s.mutable_rope()->set_rotated_dims(18); },
       {"rope.rotated_dims", "value=18", "max=16"}},
      {"no vocabulary",
       [](auto& s) { s.set_vocabulary_size(0); },
       {"vocabulary_size", "value=0", "min=1"}},
      {"vocabulary",
       [](auto& s) { s.set_vocabulary_size((1 << 24) + 1); },
       {"vocabulary_size", "max=16777216"}},
      {"separator beyond it",
       [](auto& s) { s.add_separator_token_ids(1000); },
       {"separator_token_ids", "value=1000", "max=999"}},
      {"many separators",
       [](auto& s) {
         for (int i = 0; i < 4096; ++i) s.add_separator_token_ids(2);
       },
       {"separator_token_ids count", "value=4097", "max=4096"}},
      {"slots", [](auto& s) { s.set_slots_per_block(17); }, {"slots_per_block", "value=17", "16"}},
      {"short digest",
       [](auto& s) { s.set_weights_digest("short"); },
       {"weights_digest bytes", "value=5", "min=16", "max=64"}},
      {"long digest",
       [](auto& s) { s.set_weights_digest(std::string(65, 'x')); },
       {"weights_digest bytes", "value=65", "max=64"}},
      {"adapter digest",
       [](auto& s) { s.add_adapter_digests("x"); },
       {"adapter_digests bytes", "value=1", "min=16"}},
      {"many adapters",
       [](auto& s) {
         for (int i = 0; i < 65; ++i) s.add_adapter_digests(std::string(16, 'a'));
       },
       {"adapter_digests count", "value=65", "max=64"}},
      {"long name",
       [](auto& s) { s.set_name(std::string(257, 'n')); },
       {"name bytes", "value=257", "max=256"}},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.name);
    v1::RegisterModelRequest request;
    *request.mutable_spec() = GoodSpec(1);
    each.spoil(*request.mutable_spec());
    ExpectCall(engine, &v1::KvCache::Stub::RegisterModel, request, StatusCode::INVALID_ARGUMENT,
               each.texts);
  }
  v1::RegisterModelRequest good;
  *good.mutable_spec() = GoodSpec(1);
  v1::RegisterModelResponse response;
  for (uint32_t i = 1; i < 8; ++i) {
    ASSERT_TRUE(engine.calls().Call(&v1::KvCache::Stub::RegisterModel, good, &response).ok());
  }
  ExpectCall(engine, &v1::KvCache::Stub::RegisterModel, good, StatusCode::RESOURCE_EXHAUSTED,
             {"limits.models_per_session_max=8"});
}

TEST_F(BadInputTest, OpenSequence) {
  RawEngine engine = MakeEngine();
  const auto expect = [&](const std::function<void(v1::OpenSequenceRequest&)>& spoil,
                          StatusCode code, const std::vector<std::string>& texts) {
    v1::OpenSequenceRequest request;
    request.set_model_id(engine.model_id());
    spoil(request);
    ExpectCall(engine, &v1::KvCache::Stub::OpenSequence, request, code, texts);
  };
  expect([](auto& r) { r.set_model_id(99); }, StatusCode::NOT_FOUND, {"model_id=99"});
  expect([](auto& r) { r.set_retention("nonsense"); }, StatusCode::INVALID_ARGUMENT, {"nonsense"});
  expect([](auto& r) { r.set_retention("sepllm:local_size=-1"); }, StatusCode::INVALID_ARGUMENT,
         {"local_size"});
  expect([](auto& r) { r.set_retention("sepllm:form=static,local_size=0"); },
         StatusCode::INVALID_ARGUMENT, {"local_size"});
  expect([](auto& r) { r.set_retention(std::string(5000, 'x')); }, StatusCode::INVALID_ARGUMENT,
         {"4096"});
  expect([](auto& r) { r.set_label(std::string(257, 'l')); }, StatusCode::INVALID_ARGUMENT,
         {"label", "bytes=257", "max=256"});
  v1::RegisterModelRequest unprobed;
  *unprobed.mutable_spec() = GoodSpec(2);
  v1::RegisterModelResponse registered;
  ASSERT_TRUE(engine.calls().Call(&v1::KvCache::Stub::RegisterModel, unprobed, &registered).ok());
  expect([&](auto& r) { r.set_model_id(registered.model_id()); }, StatusCode::FAILED_PRECONDITION,
         {"not probed"});
  v1::ProbeLayoutRequest probe;
  probe.set_model_id(registered.model_id());
  probe.set_seed(1);
  ExpectCall(engine, &v1::KvCache::Stub::ProbeLayout, probe, StatusCode::FAILED_PRECONDITION,
             {"layer=0", "plane=K", "slot=0", "byte=0"});
  probe.set_model_id(77);
  ExpectCall(engine, &v1::KvCache::Stub::ProbeLayout, probe, StatusCode::NOT_FOUND,
             {"model_id=77"});
  v1::OpenSequenceRequest good;
  good.set_model_id(engine.model_id());
  v1::OpenSequenceResponse opened;
  grpc::Status status;
  for (int i = 0; status.ok() && i < 300; ++i) {
    status = engine.calls().Call(&v1::KvCache::Stub::OpenSequence, good, &opened);
  }
  ExpectError(status, StatusCode::RESOURCE_EXHAUSTED,
              {"limits.table_arena_bytes", "wanted_bytes=", "free_bytes="});
}

TEST_F(BadInputTest, SequencesThatAreNotThere) {
  RawEngine engine = MakeEngine();
  const v1::OpenSequenceResponse sequence = engine.Open("full");
  v1::OpenSequenceResponse unknown = sequence, outside = sequence, stale = sequence;
  unknown.set_sequence(5);
  outside.set_sequence(4'000'000'000U);
  stale.set_uid(sequence.uid() + 1);
  const auto expect = [&](const v1::OpenSequenceResponse& name, StatusCode code,
                          const std::string& text) {
    const absl::Status synced = engine.Sync(name, 0);
    EXPECT_EQ(static_cast<int>(synced.code()), static_cast<int>(code));
    EXPECT_THAT(MessageOf(synced), HasSubstr(text));
    v1::TruncateRequest truncate;
    truncate.set_sequence(name.sequence());
    truncate.set_uid(name.uid());
    ExpectCall(engine, &v1::KvCache::Stub::Truncate, truncate, code, {text});
    v1::CloseSequenceRequest close;
    close.set_sequence(name.sequence());
    close.set_uid(name.uid());
    ExpectCall(engine, &v1::KvCache::Stub::CloseSequence, close, code, {text});
  };
  expect(unknown, StatusCode::NOT_FOUND, "sequence=5");
  expect(outside, StatusCode::NOT_FOUND, "sequence=4000000000");
  expect(stale, StatusCode::ABORTED, "stale sequence uid");
  v1::CloseSequenceRequest close;
  close.set_sequence(sequence.sequence());
  close.set_uid(sequence.uid());
  ExpectCall(engine, &v1::KvCache::Stub::CloseSequence, close, StatusCode::OK, {});
  expect(sequence, StatusCode::NOT_FOUND, "unknown or closed");
  const v1::OpenSequenceResponse next = engine.Open("full");  // the slot's next life
  EXPECT_EQ(next.sequence(), sequence.sequence());
  expect(sequence, StatusCode::ABORTED, "stale sequence uid");
}

TEST_F(BadInputTest, SyncTruncateAndTexts) {
  RawEngine engine = MakeEngine();
  const v1::OpenSequenceResponse sequence = engine.Open("full");
  ExpectCall(engine, &v1::KvCache::Stub::Sync, v1::SyncRequest(), StatusCode::INVALID_ARGUMENT,
             {"needs count", "value=0", "min=1", "max=1024"});
  v1::SyncRequest many;
  for (int i = 0; i < 1025; ++i) many.add_needs();
  ExpectCall(engine, &v1::KvCache::Stub::Sync, many, StatusCode::INVALID_ARGUMENT,
             {"needs count", "value=1025", "max=1024"});
  const absl::Status rows = engine.Sync(sequence, ~uint64_t{0});
  EXPECT_EQ(rows.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(rows), HasSubstr("granted_rows is out of bounds"));
  const absl::Status directory = engine.Sync(sequence, uint64_t{1} << 32);
  EXPECT_EQ(directory.code(), absl::StatusCode::kResourceExhausted);
  v1::TruncateRequest truncate;
  truncate.set_sequence(sequence.sequence());
  truncate.set_uid(sequence.uid());
  truncate.set_rows(1);
  ExpectCall(engine, &v1::KvCache::Stub::Truncate, truncate, StatusCode::OUT_OF_RANGE,
             {"rows=1", "max=0"});

  v1::PutTokenTextsRequest texts;
  texts.set_model_id(engine.model_id());
  texts.add_texts("ok");
  ExpectCall(engine, &v1::KvCache::Stub::PutTokenTexts, texts, StatusCode::OK, {});
  texts.set_first_id(1000);
  ExpectCall(engine, &v1::KvCache::Stub::PutTokenTexts, texts, StatusCode::INVALID_ARGUMENT,
             {"first_id=1000", "vocabulary_size=1000"});
  texts.set_first_id(0);
  texts.set_texts(0, std::string(65, 't'));
  ExpectCall(engine, &v1::KvCache::Stub::PutTokenTexts, texts, StatusCode::INVALID_ARGUMENT,
             {"bytes=65", "max=64"});
  texts.set_texts(0, std::string(2 << 20, 't'));
  ExpectCall(engine, &v1::KvCache::Stub::PutTokenTexts, texts, StatusCode::INVALID_ARGUMENT,
             {"texts", "max=1048576"});
  texts.set_model_id(50);
  texts.set_texts(0, "t");
  ExpectCall(engine, &v1::KvCache::Stub::PutTokenTexts, texts, StatusCode::NOT_FOUND,
             {"model_id=50"});
}

TEST_F(BadInputTest, AdminCalls) {
  RawEngine engine = MakeEngine();
  const v1::OpenSequenceResponse sequence = engine.Open("full");
  v1::ListSequencesRequest list;
  list.set_page_size(10'001);
  v1::ListSequencesResponse listed;
  ExpectError(engine.calls().CallAdmin(&v1::Admin::Stub::ListSequences, list, &listed),
              StatusCode::INVALID_ARGUMENT, {"page_size", "value=10001", "max=10000"});
  v1::InspectSequenceRequest inspect;
  v1::InspectSequenceResponse inspected;
  const auto expect = [&](StatusCode code, const std::vector<std::string>& texts) {
    ExpectError(engine.calls().CallAdmin(&v1::Admin::Stub::InspectSequence, inspect, &inspected),
                code, texts);
  };
  inspect.set_sequence_id(sequence.sequence_id() + 5);
  expect(StatusCode::NOT_FOUND, {"sequence_id="});
  inspect.set_sequence_id(sequence.sequence_id());
  inspect.set_layer(1);
  expect(StatusCode::INVALID_ARGUMENT, {"layer", "value=1", "max=0"});
  inspect.set_layer(0);
  inspect.set_max_rows(65'537);
  expect(StatusCode::INVALID_ARGUMENT, {"max_rows", "value=65537", "max=65536"});
  inspect.set_max_rows(1);
  inspect.set_first_row(~uint64_t{0});
  expect(StatusCode::OK, {});
  EXPECT_EQ(inspected.rows_size(), 0);
}

TEST_F(BadInputTest, Tokens) {
  for (const std::string& token : {std::string(), std::string("zz"), std::string(32, '0'),
                                   std::string(32, 'g'), std::string(4000, 'a')}) {
    RawCalls calls(folder_.path() + "/control.sock", token);
    v1::SyncRequest request;
    (void)request.add_needs();
    v1::SyncResponse response;
    ExpectError(calls.Call(&v1::KvCache::Stub::Sync, request, &response),
                StatusCode::UNAUTHENTICATED, {});
  }
}

TEST_F(BadInputTest, AnEndedSessionIsUnavailableToItsClient) {
  const std::unique_ptr<Session> session = Connect();
  ASSERT_NE(session, nullptr);
  {
    SharedCore& shared = server_->shared_for_test();
    MutexLock lock(shared.mutex);
    shared.core.EndSession(session->id());
  }
  EXPECT_EQ(session->RegisterModel(TinySpec(1)).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace kvasir::testing

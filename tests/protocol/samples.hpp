// Every message and reply of the protocol, filled with seeded random values.
#pragma once

#include <random>
#include <string>

#include "protocol/envelope.hpp"
#include "protocol/faces.hpp"
#include "protocol/failure.hpp"

namespace troupe {

using Random = std::mt19937_64;

template <class... T>
struct TypeList {};

template <class... A, class... B>
TypeList<A..., B...> joined(TypeList<A...>, TypeList<B...>);
template <class... M>
TypeList<M..., typename M::Reply...> with_replies(Messages<M...>);
template <class... Face>
struct OfFaces {
  using Type = TypeList<Failure, Envelope, Status, RoleStatus, Stop, Ack>;
};
template <class Face, class... More>
struct OfFaces<Face, More...> {
  using Type = decltype(joined(with_replies(typename Face::Accepts{}), typename OfFaces<More...>::Type{}));
};
using AllMessages = OfFaces<ActorFace, ReferenceFace, RewardFace, LearnerFace, ConductorFace, SupervisorFace>::Type;

template <class F, class... T>
void for_each_message(TypeList<T...>, F&& f) {
  (f(T{}), ...);
}

inline std::string random_text(Random& random, std::size_t most) {
  std::string text(random() % (most + 1), ' ');
  for (char& c : text) c = static_cast<char>(random() % 96 + 32);
  return text;
}

inline Attachment random_attachment(Random& random) {
  const auto n = static_cast<std::size_t>(random() % 7);
  switch (random() % 5) {
    case 0:
      return {};
    case 1:
      return Attachment::of(std::vector<int32_t>(n, static_cast<int32_t>(random())));
    case 2:
      return Attachment::of(std::vector<float>(n, 1.5F));
    case 3:
      return Attachment::of(std::vector<uint8_t>(n, static_cast<uint8_t>(random())));
    default: {
      Attachment a = Attachment::of(std::vector<int64_t>(6, static_cast<int64_t>(random())));
      a.shape = {2, 3};
      return a;
    }
  }
}

template <class T>
void fill(T& value, Random& random) {
  if constexpr (std::is_same_v<T, bool>) {
    value = random() % 2 == 0;
  } else if constexpr (std::is_integral_v<T>) {
    value = static_cast<T>(random() >> (random() % 64));
    if constexpr (std::is_signed_v<T>)
      if (random() % 2 == 0) value = static_cast<T>(-value);
  } else if constexpr (std::is_floating_point_v<T>) {
    value = std::uniform_real_distribution<double>(-1e6, 1e6)(random);
  } else if constexpr (std::is_same_v<T, std::string>) {
    value = random_text(random, random() % 8 == 0 ? 300 : 40);
  } else if constexpr (std::is_same_v<T, Attachment>) {
    value = random_attachment(random);
  } else if constexpr (wire::is_vector<T>) {
    value.clear();
    for (auto n = random() % 20; n > 0; --n) {
      typename T::value_type element{};
      fill(element, random);
      value.push_back(element);
    }
  } else if constexpr (wire::is_string_map<T>) {
    for (auto n = random() % 20; n > 0; --n) fill(value[random_text(random, 12)], random);
  } else {
    for_each_field(value, [&](std::string_view, auto& field) { fill(field, random); });
  }
}

template <class T>
T sample(Random& random) {
  T message{};
  fill(message, random);
  return message;
}

template <class T>
bool same(const T& a, const T& b) {
  if constexpr (std::is_same_v<T, Attachment>) {
    return a.dtype == b.dtype && a.shape == b.shape && a.bytes.size() == b.bytes.size() &&
           std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin());
  } else if constexpr (Fielded<T>) {
    bool equal = true;
    std::apply([&](const auto&... field) { ((equal = equal && same(a.*(field.member), b.*(field.member))), ...); },
               T::kFields);
    return equal;
  } else if constexpr (wire::is_vector<T> && !std::is_same_v<T, std::vector<bool>>) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) { return same(x, y); });
  } else {
    return a == b;
  }
}

}  // namespace troupe
